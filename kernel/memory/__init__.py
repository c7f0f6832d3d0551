"""The memory of the machine and of its devices: what others use, plans, and how they are corrected."""

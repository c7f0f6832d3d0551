"""Tuning: tasks that adapt models on their devices, and what is kept of each run."""

"""What the arbiter costs and gives: see `run`."""

"""Benches of the engine: models of real shapes with random weights, peers, and the limits of the machine."""

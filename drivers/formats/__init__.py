"""Checkpoints of other projects: their quantized weights read, and ours written for them."""

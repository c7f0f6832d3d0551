"""Choosing tokens from logits: for a whole step at once, bound to a grammar, and checking guessed tokens."""

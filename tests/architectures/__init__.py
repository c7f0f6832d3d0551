"""A tiny model of every causal architecture that the transformers library knows."""

"""Faster modules in place of those of a loaded model: each is proposed from what is seen, and kept only if verified."""

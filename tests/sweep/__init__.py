"""Every causal architecture of the library through the engine, compared with the library's own answers."""

"""Benches of the HTTP gateway."""

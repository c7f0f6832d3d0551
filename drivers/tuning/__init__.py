"""Adapting loaded models: recipe, data, the loop that trains, and what becomes of it."""

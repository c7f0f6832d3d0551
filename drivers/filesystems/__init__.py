"""Built-in filesystem drivers."""

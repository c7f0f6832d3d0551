"""Stored models into others: quantized, pruned, merged, exported."""

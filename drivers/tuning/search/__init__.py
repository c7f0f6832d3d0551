"""Searching for the fields of a recipe that serve best: trials on one base, as one tuning job."""

"""Replays traces of requests over policies of residence, beside a bound that none can beat: `llmos bench residency`."""

"""Decoding in lanes: steps of fixed shape on the device that feed themselves, while the host is a step behind."""

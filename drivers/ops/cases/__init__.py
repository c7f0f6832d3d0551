"""Inputs on which every implementation of an op is compared with its reference, in tests and on devices alike."""

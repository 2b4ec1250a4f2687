"""Measures arbstore against code that a user could write by hand: `python -m benchmarks`, or `make bench`."""

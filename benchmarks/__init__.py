"""What arbstore costs, beside what a user could write by hand: `python -m benchmarks`, or `make bench`."""

"""Measurements: each module is a command, and `launch.bench.figures` runs them all and prints the table."""

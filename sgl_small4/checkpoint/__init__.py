"""Checkpoint files: their names in both formats, strict loading, and conversion between the formats."""

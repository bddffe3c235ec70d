"""The nano checkpoint: a Mistral 4 of a few million parameters, trained here on generated tasks."""

from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"

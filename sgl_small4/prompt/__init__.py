"""The conversation format: messages to token ids and back, and the adapter that serves it."""

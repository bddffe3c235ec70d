"""What the nano model is taught: each module makes one kind of conversation, endlessly, from a random generator."""

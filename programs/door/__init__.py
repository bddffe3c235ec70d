"""Graphs behind the chat API, for clients that know nothing of programs."""

from programs.door.door import GraphDoor

__all__ = ["GraphDoor"]

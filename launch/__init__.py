"""The command line `small4` and everything that starts, asks or measures a server."""

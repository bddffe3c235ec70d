"""The root of errors that are told to a user."""


class UserError(Exception):
    """What happened and what to do, in one sentence; the command line prints it and nothing else."""

"""An error with a sentence for the user."""


class ProgramError(Exception):
    """What happened and what to do, in one sentence; the command line prints it and nothing else."""

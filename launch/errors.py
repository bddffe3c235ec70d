"""The one exception of the command line."""


class LaunchError(Exception):
    """Something the person at the command line can put right; its text is one sentence that says how."""

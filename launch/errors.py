"""The one exception of the command line."""

from sgl_small4.errors import UserError


class LaunchError(UserError):
    """Something the person at the command line can put right; its text is one sentence that says how."""

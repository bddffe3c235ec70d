"""The one exception of the programs."""

from sgl_small4.errors import UserError


class ProgramError(UserError):
    """What cannot be asked as it is; one sentence that says what to do."""

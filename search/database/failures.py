"""From an exception to the line and the status that a command, or a worker, ends with."""

from __future__ import annotations

from pruner.errors import InputError
from search.database.connection import DATABASE_ERRORS, reason
from search.exit_status import AFTERWARDS, ExitStatus, Failed, of_system


def ended_by(error: BaseException) -> Failed | None:
    """The Failed to end with for an error; None for a bug in this program, whose traceback says more."""
    if isinstance(error, Failed):
        return error
    if isinstance(error, InputError):
        return Failed(str(error), ExitStatus.BAD_INPUT)
    if isinstance(error, OSError):
        return of_system(error)
    if isinstance(error, DATABASE_ERRORS):
        return Failed(f"the study's database: {reason(error)}; {AFTERWARDS}", ExitStatus.TRY_AGAIN)
    if isinstance(error, KeyboardInterrupt):
        return Failed("interrupted; give the same command again to continue", ExitStatus.INTERRUPTED)
    return None

"""The exit statuses of `prune-search`, all in one place, and the exception that ends a command with one of them."""

from __future__ import annotations

import errno
from enum import IntEnum
from pathlib import Path

from pruner.errors import InputError

AFTERWARDS = "nothing finished is lost, give the same command again afterwards"
_WRONG_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
"""The system errors that recur when the same command is run again."""


class ExitStatus(IntEnum):
    """How a command ended, as a script sees it."""

    DONE = 0
    LEFT_TO_FIX = 1
    """`check` found a problem that is not fixed."""
    BAD_INPUT = 2
    """An argument, a file or a setting cannot be used."""
    ALL_FAILED = 3
    """No trial finished: all failed, or three in a row did."""
    NONE_FEASIBLE = 4
    """Trials finished, but none meets the constraints."""
    DAMAGED = 5
    """The study's database is damaged or lost; `check --fix` builds a new one."""
    TRY_AGAIN = 75
    """An outside cause that may pass, such as a full disk or an unreachable database (EX_TEMPFAIL)."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM (128 + SIGINT)."""


class Failed(InputError):
    """Ends the command with an exit status of its own; the text is one line for the user."""

    def __init__(self, text: str, status: ExitStatus) -> None:
        super().__init__(text)
        self.status = status


def of_system(error: OSError) -> Failed:
    """The error that ends the command after a system error: may the cause pass, or is another path needed?"""
    path = Path(error.filename) if isinstance(error.filename, str) else None
    said = f"{f'{path}: ' if path else ''}{error.strerror or error}"
    if error.errno == errno.EROFS or (isinstance(error, PermissionError) and path and not path.exists()):
        return Failed(str(read_only((path or Path()).parent)), ExitStatus.BAD_INPUT)  # the path was about to be written
    if isinstance(error, PermissionError):
        return Failed(f"{said}; name another path, or have its owner permit it", ExitStatus.BAD_INPUT)
    if isinstance(error, _WRONG_PATH) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return Failed(f"{said}; name another path", ExitStatus.BAD_INPUT)
    return Failed(f"{said}; {AFTERWARDS}", ExitStatus.TRY_AGAIN)


def read_only(path: Path) -> InputError:
    """The error for a file or folder that must be writable and is not."""
    return InputError(
        f"{path}: the disk is read-only, or this user may not write here; a study here can be read (status, check, "
        "plot --out, export --out); to continue it, copy its folder of runs and name the copy with --runs"
    )

"""The exit statuses of `prune-search`, all in one place, and the exception that ends a command with one of them."""

from __future__ import annotations

import errno
from enum import IntEnum
from pathlib import Path

from pruner.errors import InputError

AFTERWARDS = "nothing finished is lost, give the same command again afterwards"
_WRONG_PATH = (FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError)
"""The system's errors that come again when the command is given again."""


class ExitStatus(IntEnum):
    """How a command ended, as a script sees it."""

    DONE = 0
    LEFT_TO_FIX = 1
    """`check` found something that is not fixed."""
    BAD_INPUT = 2
    """Something that was given cannot be used."""
    ALL_FAILED = 3
    """No trial was finished: every one failed, or three in a row did."""
    NONE_FEASIBLE = 4
    """Trials were finished, but none keeps to the constraints."""
    DAMAGED = 5
    """The study's database is damaged or lost; `check --fix` builds a new one."""
    TRY_AGAIN = 75
    """Something outside is at fault that may pass: a full disk, a database that is away (EX_TEMPFAIL)."""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM (128 + SIGINT)."""


class Failed(InputError):
    """The command ends with a status of its own; the text is one line for the user."""

    def __init__(self, text: str, status: ExitStatus) -> None:
        super().__init__(text)
        self.status = status


def of_system(error: OSError) -> Failed:
    """What to end with for an error of the operating system's: may it pass, or is another path wanted?"""
    path = Path(error.filename) if isinstance(error.filename, str) else None
    said = f"{f'{path}: ' if path else ''}{error.strerror or error}"
    if error.errno == errno.EROFS or (isinstance(error, PermissionError) and path and not path.exists()):
        return Failed(str(read_only((path or Path()).parent)), ExitStatus.BAD_INPUT)  # it was to be written
    if isinstance(error, PermissionError):
        return Failed(f"{said}; name another path, or have its owner permit it", ExitStatus.BAD_INPUT)
    if isinstance(error, _WRONG_PATH) or error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return Failed(f"{said}; name another path", ExitStatus.BAD_INPUT)
    return Failed(f"{said}; {AFTERWARDS}", ExitStatus.TRY_AGAIN)


def read_only(path: Path) -> InputError:
    """What to raise for a file or folder that must be written to and cannot be."""
    return InputError(
        f"{path}: the disk is read-only, or this user may not write here; a study here can be looked at (status, "
        "check, plot --out, export --out), and goes on in a copy of its folder of runs, named with --runs"
    )

"""Waiting for what is away and comes back: a database server that restarts, a disk that is full."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pruner.system.files import insisting
from search import signals

T = TypeVar("T")

PATIENCE_S = 600.0
"""How long something that was there may be away before a worker gives up."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class Hindrance:
    """What keeps something from being done, and may pass."""

    said: str
    passed: str
    """What to say when it has passed."""


def full_disk(error: BaseException) -> Hindrance | None:
    """The hindrance behind an error, if that is a disk, or a user's share of it, that is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f"{error.filename}: " if error.filename else ""
        return Hindrance(f"{where}{error.strerror}", "There is space on the disk again.")
    return None


def patiently(
    action: Callable[[], T],
    say: Callable[[str], None],
    hindrance: Callable[[BaseException], Hindrance | None],
    *,
    patience: float = PATIENCE_S,
    before_again: Callable[[], object] = bool,
) -> T:
    """Do it, and again while `hindrance` finds one behind its errors, up to `patience` seconds in all.

    `action` must be safe to repeat. An interrupt ends the waiting, even where interrupts are deferred.
    """
    began, pause = time.monotonic(), _FIRST_PAUSE_S
    met: Hindrance | None = None
    while True:
        try:
            result = action()
        except Exception as error:
            found, left = hindrance(error), patience - (time.monotonic() - began)
            if found is None or left <= 0:
                raise
            if met is None:
                say(f"{found.said}; trying again for {left / 60:.0f} min.")
            met = found
            before_again()
            signals.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_S)
        else:
            if met is not None:
                say(met.passed)
            return result


@contextmanager
def waiting_for_space(say: Callable[[str], None]) -> Iterator[None]:
    """In the block, files that do not fit on the disk are written when they do: what they hold took time."""
    with insisting(lambda write: patiently(write, say, full_disk)):
        yield

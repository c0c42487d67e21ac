"""Waiting for what is away and comes back: a database server that restarts, a disk that is full."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import tenacity

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
    met: list[Hindrance] = []

    def hindered(error: BaseException) -> bool:
        found = hindrance(error)
        met.extend([found] if found else [])
        return found is not None

    def before_sleep(state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1:
            say(f"{met[0].said}; trying again for {patience / 60:.0f} min.")
        before_again()

    result = tenacity.Retrying(
        retry=tenacity.retry_if_exception(hindered),
        stop=tenacity.stop_after_delay(patience),
        wait=tenacity.wait_exponential(multiplier=_FIRST_PAUSE_S, exp_base=1.5, max=_LONGEST_PAUSE_S),
        sleep=signals.sleep,
        before_sleep=before_sleep,
        reraise=True,
    )(action)
    if met:
        say(met[-1].passed)
    return result


@contextmanager
def waiting_for_space(say: Callable[[str], None]) -> Iterator[None]:
    """In the block, files that do not fit on the disk are written when they do: what they hold took time."""
    with insisting(lambda write: patiently(write, say, full_disk)):
        yield

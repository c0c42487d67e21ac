"""Retry while something is temporarily unavailable: a database server that restarts, a disk that is full."""

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
"""How long something that was available may be away before a worker gives up."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class Hindrance:
    """A cause that prevents an action, and may pass."""

    said: str
    passed: str
    """The message for when it has passed."""


def full_disk(error: BaseException) -> Hindrance | None:
    """The hindrance behind an error, if a disk, or the user's quota on it, is full."""
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
    """Call `action`, and repeat it while `hindrance` finds one behind its errors, for up to `patience` seconds in all.

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
    """In the block, retry writes that do not fit on the disk: the data took time to compute."""
    with insisting(lambda write: patiently(write, say, full_disk)):
        yield

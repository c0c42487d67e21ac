"""Ctrl-C and SIGTERM: the first stops cleanly, the second at once.

The first raises KeyboardInterrupt wherever the program is, except inside a `deferred` block. Correctness does not
depend on that block (files are whole or absent); it saves the epoch that is being written. Where Python swallows
exceptions (in a finaliser, in a C callback) the interrupt is lost, so long computations call `check` regularly.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from search.exit_status import ExitStatus

_depth = 0
_asked = False


def install() -> None:
    """Install these handlers for SIGINT and SIGTERM in this process."""
    signal.signal(signal.SIGINT, _on_signal)
    signal.signal(signal.SIGTERM, _on_signal)


def check() -> None:
    """Raise KeyboardInterrupt if the process was asked to stop."""
    if _asked and not _depth:
        raise KeyboardInterrupt


def sleep(seconds: float) -> None:
    """Wait. An interrupt ends the wait even in a `deferred` block, which is meant to be short.

    Raises KeyboardInterrupt.
    """
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if _asked:
            raise KeyboardInterrupt
        time.sleep(min(left, 0.2))


@contextmanager
def deferred() -> Iterator[None]:
    """Let the block finish before an interrupt takes effect; for writes that take well under a second."""
    global _depth
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
    check()


def _on_signal(_signal: int, _frame: FrameType | None) -> None:
    global _asked
    if _asked:
        os._exit(ExitStatus.INTERRUPTED)
    _asked = True
    if not _depth:
        raise KeyboardInterrupt

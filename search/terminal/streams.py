"""Standard input, output and error as a process finds them: open, closed, or full."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def open_streams() -> None:
    """Make all three usable; call it before anything else is opened.

    Those that the process was begun without become the null device. What is opened next would get their numbers: a
    database, say, and what a library or a worker prints would go into it. Worker processes inherit what is opened here.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # it is closed, and so the lowest number that is free
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - these live as long as we do
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stdout is None:
        number, encoding = os.open(os.devnull, os.O_WRONLY), "utf-8"
    else:
        number, encoding = sys.stdout.fileno(), sys.stdout.encoding
    # Like standard error, it escapes what it cannot encode: a name is no reason to stop.
    whole = open(number, "wb", closefd=False)  # noqa: SIM115
    sys.stdout = _Output(whole, encoding, "backslashreplace", line_buffering=whole.isatty())


class _Output(io.TextIOWrapper):
    """Standard output; an error, as of a full disk, says that it is."""

    def write(self, text: str) -> int:
        with _named():
            return super().write(text)

    def flush(self) -> None:
        with _named():
            super().flush()


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = "standard output"
        raise

"""Make standard input, output and error usable, whether a process finds them open, closed, or full."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def open_streams() -> None:
    """Make all three streams usable; call this before anything else is opened.

    Streams that were closed when the process started become the null device. Otherwise the next opened file, such as
    a database, would get their numbers, and a library's or worker's output would go into it. Worker processes inherit
    the streams opened here.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # it is closed, so `open` returns this number, the lowest free one
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115 - these live as long as we do
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stdout is None:
        number, encoding = os.open(os.devnull, os.O_WRONLY), "utf-8"
    else:
        number, encoding = sys.stdout.fileno(), sys.stdout.encoding
    # Like standard error, escape what cannot be encoded: a strange file name is no reason to stop.
    whole = open(number, "wb", closefd=False)  # noqa: SIM115
    sys.stdout = _Output(whole, encoding, "backslashreplace", line_buffering=whole.isatty())


class _Output(io.TextIOWrapper):
    """Standard output whose errors, such as a full disk, name it."""

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

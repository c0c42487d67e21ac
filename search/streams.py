"""Standard input, output and error as a process finds them: closed, full, or with nobody at the other end."""

from __future__ import annotations

import io
import os
import sys


def open_missing() -> None:
    """Open the null device as those of the three that the process was begun without; call it first of all.

    What is opened next would get their numbers: a database, say, and what a library or a worker prints would go into
    it. Worker processes inherit what is opened here.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # it is closed, and so the lowest number that is free
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - as long as we live
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error does: no name is a reason to stop


def broken_output() -> str:
    """Says "standard output" if what was printed cannot be written, as on a full disk; otherwise empty."""
    try:
        sys.stdout.flush()
    except OSError:
        return "standard output"
    return ""

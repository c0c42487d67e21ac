"""`prune-search` as a command, in this process or one of its own, and the processes that it starts."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

Command = Callable[..., subprocess.CompletedProcess[str]]
"""The fixture `command`."""
Invoke = Callable[..., str]
"""The fixture `invoke`."""
PROGRAM = Path(sys.executable).with_name("prune-search")


@contextmanager
def running(
    *arguments: object,
    stdout: int | IO[str] = subprocess.PIPE,
    stderr: int | IO[str] = subprocess.PIPE,
    terminal: int | None = None,
    **environment: str,
) -> Iterator[subprocess.Popen[str]]:
    """`prune-search` in a process of its own, whose children can be found; killed at the end if it still runs.

    `terminal`: the device of one that it has to itself, for all its streams.
    """
    streams = {"stdout": stdout, "stderr": stderr} if terminal is None else dict.fromkeys(
        ("stdin", "stdout", "stderr"), terminal
    )  # fmt: skip
    with subprocess.Popen(
        [PROGRAM, *map(str, arguments)], text=True, env={**os.environ, **environment},
        start_new_session=terminal is not None, preexec_fn=None if terminal is None else _own_terminal, **streams,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _own_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def workers(pool: int) -> list[int]:
    """A pool's workers are children of the server that it forks them from."""
    return [worker for child in children(pool) for worker in children(child)]


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Until it holds, while the process, if one is given, is at work."""
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)

"""A pool's workers as processes on this machine: they share the cores, and take the GPUs in turn.

They are forked from a server process that has torch loaded but has never computed with it. So workers start and restart
at once (imports take 5 s of a core), and all share the libraries' memory.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Any

from pruner.system.machine import available_memory, cores
from search import signals
from search.exit_status import ExitStatus
from search.options import Options
from search.study.spec import StudySpec, from_content
from search.terminal.events import Event, Said
from search.workers.pool import Handle
from search.workers.process import Exit, live

_CONTEXT = multiprocessing.get_context("forkserver")
_PRELOADED = [
    "search.workers.worker",
    "search.workers.setup",
    "sklearn.datasets",
    "sqlalchemy.orm",
    "alembic.context",
    "psycopg",
]
"""The modules that workers import sooner or later; those that are not installed are skipped."""
_MEMORY = 4 * 2**30
"""Bytes for one worker. Training the dense network at 224 px in batches of 64 peaked at 3.6 GiB, a candidate from it
(tests/benchmarks/bench_candidate.py) at 2.7; training one of 38 MFLOPs, at 1.5."""


def default_workers(spec: StudySpec, left: int | None, gpus: int) -> int:
    """The default number of workers: one per GPU, otherwise one per core.

    On two cores, two workers with one thread each trained 1.8 times as many images a second as one with two threads on
    digits at 32 px, and 1.24 times as many on CIFAR-10 at 224 px (tests/benchmarks/bench_workers.py). More workers than
    the sampler's `max_concurrent` would wait, and each needs memory.
    """
    most = gpus or min(cores(), max(1, available_memory() // _MEMORY))
    if spec.sampler.max_concurrent and spec.sampler.name not in ("random", "grid"):
        most = min(most, spec.sampler.max_concurrent)
    return max(1, min(most, left) if left is not None else most)


def begin_server() -> None:
    """Start the server process, which loads what workers need, if it is not running yet."""
    _CONTEXT.set_forkserver_preload(_PRELOADED)
    forkserver.ensure_running()


class LocalLauncher:
    """Starts workers on this machine."""

    def __init__(self, spec: StudySpec, options: Options, count: int, gpus: int) -> None:
        self._spec, self._count, self._gpus = spec, count, gpus
        self._options = replace(options, threads=options.threads or max(1, cores() // count))
        begin_server()

    def start(self, number: int, on_event: Callable[[Event], None]) -> Handle:
        options = self._options
        if self._gpus and options.device in ("auto", "cuda"):
            options = replace(options, device=f"cuda:{number % self._gpus}")
        events, tells = _CONTEXT.Pipe(duplex=False)
        output, prints = _CONTEXT.Pipe(duplex=False)
        process = _CONTEXT.Process(target=_main, args=(self._spec.content(), options, tells, prints))
        process.start()
        tells.close()
        prints.close()
        return _Process(process, events, output, on_event)


class _Process:
    """A running worker."""

    def __init__(
        self, process: ForkServerProcess, events: Connection, output: Connection, on_event: Callable[[Event], None]
    ) -> None:
        self._process, self._events, self._on_event = process, events, on_event
        self._said: Exit | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._listener = threading.Thread(target=self._listen, args=(output,), daemon=True)
        self._reader.start()
        self._listener.start()

    def _read(self) -> None:
        while True:
            try:
                told = self._events.recv()
            except (EOFError, OSError):
                return
            if isinstance(told, Exit):
                self._said = told
            else:
                self._on_event(told)

    def _listen(self, output: Connection) -> None:
        """Pass on what the worker's libraries print."""
        with open(output.fileno(), encoding="utf-8", errors="replace", closefd=False) as lines:
            for line in filter(None, map(str.rstrip, lines)):
                self._on_event(Said(line))

    def exit(self) -> Exit | None:
        code = self._process.exitcode
        if code is None:
            return None
        self._reader.join(timeout=1)
        self._listener.join(timeout=0.2)  # the worker's own child processes may live on, and print
        if self._said:
            return self._said
        if code < 0:
            name = signal.Signals(-code).name
            hint = "; the system does that when memory runs out" if name == "SIGKILL" else ""
            return Exit(wanted=False, final=False, reason=f"killed by {name}{hint}")
        return Exit(wanted=False, final=False, reason=f"exit status {code}")

    def stop(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()


def _main(study: dict[str, Any], options: Options, events: Connection, output: Connection) -> None:
    os.setsid()  # Ctrl-C reaches the pool alone, which passes it on once
    for number in (1, 2):  # a paused terminal must not block a worker that prints a warning
        os.dup2(output.fileno(), number)
    output.close()
    signals.install()

    def send(event: Event | Exit) -> None:
        try:
            events.send(event)
        except (BrokenPipeError, ConnectionResetError):  # the pool is gone
            raise KeyboardInterrupt from None

    try:
        send(live(from_content(study), options, send))
    except KeyboardInterrupt:
        os._exit(ExitStatus.INTERRUPTED)

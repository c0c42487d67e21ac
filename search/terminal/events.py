"""Events that a pool's worker sends to the pool: plain values that go through a pipe or a queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from search.terminal.progress import Bar

_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class At:
    """What the worker is doing."""

    text: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Said:
    """A line to keep on the terminal."""

    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A trial is finished."""

    number: int
    state: str
    score: float | None
    text: str


Event = At | Said | Finished


class Events:
    """Progress (see `search.terminal.progress`) that is sent as events."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self._send = send

    @contextmanager
    def task(self, text: str, total: int, unit: str = "images", done: int = 0) -> Iterator[Bar]:
        yield _Task(self._send if unit == "images" else _nobody, text, total, done)

    def line(self, text: str) -> None:
        self._send(Said(text))

    def trial(self, number: int, state: str, score: float | None, text: str) -> None:
        self._send(Finished(number, state, score, text))


class _Task:
    def __init__(self, send: Callable[[Event], None], text: str, total: int, done: int) -> None:
        self._send, self._text, self._total, self._done = send, text, total, done
        self._told = 0.0
        self._tell()

    def advance(self, count: int = 1) -> None:
        self.set(self._done + count)

    def set(self, done: int) -> None:
        self._done = done
        if time.monotonic() - self._told >= _EVERY_S:
            self._tell()

    def say(self, text: str) -> None:
        self._text = text
        self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        self._send(At(self._text, self._done, self._total))


def _nobody(_event: Event) -> None:
    pass

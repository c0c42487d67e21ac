"""Progress of long work: the interface that reports it, and a terminal that shows it as bars (in a log: lines)."""

from __future__ import annotations

import io
import select
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column
from rich.text import Text

from search.terminal.screen import LineWriter, Picture, Screen, plain


class Bar(Protocol):
    """One running task."""

    def advance(self, count: int = 1) -> None:
        """Report that `count` more are done."""

    def set(self, done: int) -> None:
        """Report that `done` are done in all."""

    def say(self, text: str) -> None:
        """Change the task's description."""


class Progress(Protocol):
    """The receiver of progress: a terminal, or the pool that this process works for."""

    def task(self, text: str, total: int, unit: str = "images", done: int = 0) -> AbstractContextManager[Bar]:
        """Show a task while the block runs; tasks may be nested."""

    def line(self, text: str) -> None:
        """Show a permanent line."""

    def trial(self, number: int, state: str, score: float | None, text: str) -> None:
        """Report a finished trial; `text` describes it in one line."""


class _Bar:
    def __init__(self, bars: Bars, task: int) -> None:
        self._bars, self._task = bars, task

    def advance(self, count: int = 1) -> None:
        self._bars.advance(self._task, count)  # type: ignore[arg-type]

    def set(self, done: int) -> None:
        self._bars.update(self._task, completed=done)  # type: ignore[arg-type]

    def say(self, text: str) -> None:
        self._bars.update(self._task, description=text)  # type: ignore[arg-type]


class _Doing(ProgressColumn):
    """The task's description, the column that is shortened on a narrow terminal."""

    def render(self, task: Task) -> Text:
        return Text(plain(task.description), no_wrap=True, overflow="ellipsis")


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit", "")
        speed = task.finished_speed or task.speed
        rate = f"  {speed:,.0f}/s" if speed and unit == "images" else ""
        return Text(f"{_count(task)} {unit}{rate}", style="cyan")


class _Share(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(share(task), style="cyan")


def share(task: Task) -> str:
    """How much of a task is done."""
    return f"{task.percentage:.0f}%" if task.total else _count(task)


def _count(task: Task) -> str:
    """How many are done and, if known, of how many."""
    return f"{task.completed:,.0f}" + ("" if task.total is None else f"/{task.total:,.0f}")


_WHOLE = Column(no_wrap=True)
_LEFT = TimeRemainingColumn(table_column=_WHOLE)
_LAYOUTS = {
    100: (
        _Doing(), BarColumn(24, table_column=_WHOLE), _Speed(table_column=_WHOLE), TimeElapsedColumn(_WHOLE),
        TextColumn("left", table_column=_WHOLE), _LEFT,
    ),
    50: (_Doing(), BarColumn(12, table_column=_WHOLE), _Share(table_column=_WHOLE), _LEFT),
    0: (_Doing(), _Share(table_column=_WHOLE)),
}  # fmt: skip
"""Least terminal width in characters -> the columns that a task shows."""
_LAST_WORDS_S = 1.0
_WINDOW_S = 10.0
"""How far back a task's speed is measured."""


def _takes_more(stream: TextIO) -> bool:
    """Whether a write to the stream returns at once: it does not where a pipe is full or a terminal is paused."""
    try:
        return bool(select.select([], [stream.fileno()], [], 0)[1])
    except (OSError, ValueError):  # not a file, but a replacement by a test or a notebook
        return True


def hidden_bars() -> Bars:
    """Rich's model of running tasks, never started: the screen draws them."""
    return Bars(console=Console(file=io.StringIO()), speed_estimate_period=_WINDOW_S)


class Terminal:
    """Bars and lines on standard error, so that standard output stays clean for scripts.

    The context manager exits when everything is shown, so that later output follows it. If nobody reads (see
    `search.terminal.screen`), it waits for a reader or Ctrl-C.
    """

    def __init__(self) -> None:
        self._screen = Screen()
        self._bars = hidden_bars()

    def __enter__(self) -> Terminal:
        self._stderr, self._lines = sys.stderr, LineWriter(self._screen)
        sys.stderr = self._lines
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        sys.stderr = self._stderr
        self._lines.end()
        interrupted, shown = kind is not None and issubclass(kind, KeyboardInterrupt), False
        try:
            shown = self._screen.close(_LAST_WORDS_S if interrupted else None)
            shown = shown and (not interrupted or _takes_more(self._stderr))
        finally:
            if not shown:
                sys.stderr = io.StringIO()  # nobody reads, so writing more would block forever

    @contextmanager
    def showing(self, picture: Picture) -> Iterator[None]:
        """Show a picture while the block runs, if standard error is a terminal."""
        with self._screen.showing(picture):
            yield

    @contextmanager
    def task(self, text: str, total: int, unit: str = "images", done: int = 0) -> Iterator[Bar]:
        with nullcontext() if self._bars.tasks else self._screen.showing(self._picture):
            task = self._bars.add_task(text, total=total or None, completed=done, unit=unit)
            try:
                yield _Bar(self._bars, task)
            finally:
                self._bars.remove_task(task)

    def line(self, text: str) -> None:
        self._screen.line(text)

    def trial(self, number: int, state: str, score: float | None, text: str) -> None:
        self.line(text)

    def _picture(self, columns: int, _rows: int) -> RenderableType:
        self._bars.columns = next(layout for least, layout in _LAYOUTS.items() if columns >= least)
        return self._bars

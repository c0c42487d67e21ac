"""Progress: what long work tells of itself, and how a terminal shows it (bars while it is one, lines in a log)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from search.results import Record


class Bar(Protocol):
    """One running task."""

    def advance(self, count: int = 1) -> None:
        """So many more are done."""

    def set(self, done: int) -> None:
        """So many are done in all."""

    def say(self, text: str) -> None:
        """Change what the task says it is doing."""


class Progress(Protocol):
    """Who is told: a terminal, or the pool that this process works for."""

    def task(self, text: str, total: int, unit: str = "images", done: int = 0) -> AbstractContextManager[Bar]:
        """A task for as long as the block runs; tasks may be nested."""

    def line(self, text: str) -> None:
        """Something to remember."""

    def trial(self, done: Record, text: str) -> None:
        """A trial is finished; `text` says how in a line."""


class _Bar:
    def __init__(self, bars: Bars, task: int) -> None:
        self._bars, self._task = bars, task

    def advance(self, count: int = 1) -> None:
        self._bars.advance(self._task, count)  # type: ignore[arg-type]

    def set(self, done: int) -> None:
        self._bars.update(self._task, completed=done)  # type: ignore[arg-type]

    def say(self, text: str) -> None:
        self._bars.update(self._task, description=text)  # type: ignore[arg-type]


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit", "")
        speed = task.finished_speed or task.speed
        rate = f"  {speed:,.0f}/s" if speed and unit == "images" else ""
        return Text(f"{task.completed:,.0f}/{task.total:,.0f} {unit}{rate}", style="cyan")


class Terminal:
    """Bars and lines on standard error, so that standard output stays clean for scripts."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _Speed(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    @contextmanager
    def task(self, text: str, total: int, unit: str = "images", done: int = 0) -> Iterator[Bar]:
        outermost = not self._bars.tasks
        if outermost:
            self._bars.start()
        task = self._bars.add_task(text, total=total or None, completed=done, unit=unit)
        try:
            yield _Bar(self._bars, task)
        finally:
            self._bars.remove_task(task)
            if outermost:
                self._bars.stop()

    def line(self, text: str) -> None:
        self.console.print(text, markup=False)

    def trial(self, done: Record, text: str) -> None:
        self.line(text)

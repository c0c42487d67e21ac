"""Progress on the terminal: bars while it is one, plain lines in a log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text


class Bar:
    """One running task."""

    def __init__(self, bars: Bars, task: int) -> None:
        self._bars, self._task = bars, task

    def advance(self, count: int = 1) -> None:
        """So many more are done."""
        self._bars.advance(self._task, count)  # type: ignore[arg-type]

    def say(self, text: str) -> None:
        """Change what the bar says it is doing."""
        self._bars.update(self._task, description=text)  # type: ignore[arg-type]


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit", "")
        speed = task.finished_speed or task.speed
        rate = f"  {speed:,.0f}/s" if speed and unit == "images" else ""
        return Text(f"{task.completed:,.0f}/{task.total:,.0f} {unit}{rate}", style="cyan")


class Progress:
    """Bars and lines on standard error, so that standard output stays clean for scripts."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            _Speed(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    @contextmanager
    def task(self, text: str, total: int, unit: str = "images", done: int = 0) -> Iterator[Bar]:
        """A bar for as long as the block runs; tasks may be nested."""
        outermost = not self._bars.tasks
        if outermost:
            self._bars.start()
        task = self._bars.add_task(text, total=total, completed=done, unit=unit)
        try:
            yield Bar(self._bars, task)
        finally:
            self._bars.remove_task(task)
            if outermost:
                self._bars.stop()

    def line(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False)

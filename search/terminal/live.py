"""The pool's live table: each worker's task, images a second and last score, then the state of the study."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from textwrap import wrap

from rich.console import Group, RenderableType
from rich.progress import Task
from rich.table import Table
from rich.text import Text

from search.terminal.events import At, Event, Finished, Said
from search.terminal.progress import Terminal, hidden_bars, share
from search.terminal.screen import plain

_WIDE_FROM = 60
"""The terminal width, in characters, from which all columns of the table are shown."""
_PAUSES = 50
"""How many times as long as it took to read the study's state it is not read again, unless a trial has finished."""


class LiveTable:
    """A table that follows the workers on a terminal; without a terminal, only the permanent lines are written."""

    def __init__(self, terminal: Terminal, count: int, headline: Callable[[], str]) -> None:
        """`headline`: returns the state of the study; called again whenever a trial has finished, and when a worker
        begins something else, such as an epoch, unless that would be too often."""
        self._terminal, self._headline = terminal, headline
        self._bars = hidden_bars()
        for _ in range(count):
            self._bars.add_task("starting", total=0, last="")
        self._next = 0.0
        self._ask()

    @contextmanager
    def shown(self) -> Iterator[LiveTable]:
        """Show the table while the block runs."""
        with self._terminal.showing(self._picture):
            yield self

    def event(self, number: int, event: Event) -> None:
        task = self._bars.tasks[number]
        if isinstance(event, At):
            if event.done < task.completed or event.total != task.total:  # another task, of a speed of its own
                self._bars.reset(task.id, total=event.total, completed=event.done)
                if time.monotonic() >= self._next:
                    self._ask()
            self._bars.update(task.id, description=event.text, completed=event.done)
        elif isinstance(event, Finished):
            self._bars.update(task.id, last=event.state if event.score is None else f"{event.score:.2f}")
            self._terminal.line(event.text)
            self._ask()
        elif isinstance(event, Said):
            self._terminal.line(f"worker {number}: {event.text}")

    def state(self, number: int, text: str) -> None:
        self._bars.reset(self._bars.tasks[number].id, total=0, description=text)
        if text != "done":
            self._terminal.line(f"worker {number}: {text}")

    def _ask(self) -> None:
        began = time.monotonic()
        self._summary = self._headline()
        asked = time.monotonic()
        self._next = asked + _PAUSES * (asked - began)

    def _picture(self, columns: int, rows: int) -> RenderableType:
        summary = wrap(plain(self._summary), columns)
        fit = rows - 1 - len(summary)  # rows below the titles
        workers = self._bars.tasks
        shown = len(workers) if len(workers) <= fit else max(0, fit - 1)
        table = Table(box=None, pad_edge=False)
        for title in ("worker", "doing", "", "images/s", "last score")[: None if columns >= _WIDE_FROM else 3]:
            table.add_column(title, justify="left" if title == "doing" else "right", no_wrap=title != "doing")
        for number, task in enumerate(workers[:shown]):
            table.add_row(*(str(number), *_cells(task))[: len(table.columns)])
        more = [f"and {len(workers) - shown} more workers"] if shown < len(workers) else []
        return Group(table, *more, Text("\n".join(summary), style="cyan"))


def _cells(task: Task) -> tuple[Text, str, str, str]:
    doing = Text(plain(task.description), no_wrap=True, overflow="ellipsis")
    return doing, share(task) if task.total else "", f"{task.speed:,.0f}" if task.speed else "", task.fields["last"]

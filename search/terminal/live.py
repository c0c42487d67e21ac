"""The pool's live table: each worker's task, images a second and last score, then the state of the study."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import wrap

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from search.terminal.events import At, Event, Finished, Said
from search.terminal.progress import Terminal
from search.terminal.screen import plain

_WIDE_FROM = 60
"""The terminal width, in characters, from which all columns of the table are shown."""


@dataclass(slots=True)
class _Row:
    doing: str = "starting"
    share: str = ""
    rate: str = ""
    last: str = ""


class LiveTable:
    """A table that follows the workers on a terminal; without a terminal, only the permanent lines are written."""

    def __init__(self, terminal: Terminal, count: int, headline: Callable[[], str]) -> None:
        """`headline`: returns the state of the study; called again whenever a trial has finished."""
        self._terminal, self._headline = terminal, headline
        self._rows = [_Row() for _ in range(count)]
        self._summary = headline()

    @contextmanager
    def shown(self) -> Iterator[LiveTable]:
        """Show the table while the block runs."""
        with self._terminal.showing(self._picture):
            yield self

    def event(self, number: int, event: Event) -> None:
        row = self._rows[number]
        if isinstance(event, At):
            row.doing = event.text
            row.share = f"{event.done / event.total:.0%}" if event.total else ""
            row.rate = f"{event.rate:,.0f}" if event.rate else ""
        elif isinstance(event, Finished):
            row.last = event.state if event.score is None else f"{event.score:.2f}"
            self._terminal.line(event.text)
            self._summary = self._headline()
        elif isinstance(event, Said):
            self._terminal.line(f"worker {number}: {event.text}")

    def state(self, number: int, text: str) -> None:
        self._rows[number] = _Row(doing=text, last=self._rows[number].last)
        if text != "done":
            self._terminal.line(f"worker {number}: {text}")

    def _picture(self, columns: int, rows: int) -> RenderableType:
        summary = wrap(plain(self._summary), columns)
        fit = rows - 1 - len(summary)  # rows below the titles
        shown = len(self._rows) if len(self._rows) <= fit else max(0, fit - 1)
        table = Table(box=None, pad_edge=False)
        for title in ("worker", "doing", "", "images/s", "last score")[: None if columns >= _WIDE_FROM else 3]:
            table.add_column(title, justify="left" if title == "doing" else "right", no_wrap=title != "doing")
        for number, row in enumerate(self._rows[:shown]):
            doing = Text(plain(row.doing), no_wrap=True, overflow="ellipsis")
            table.add_row(*(str(number), doing, row.share, row.rate, row.last)[: len(table.columns)])
        more = [f"and {len(self._rows) - shown} more workers"] if shown < len(self._rows) else []
        return Group(table, *more, Text("\n".join(summary), style="cyan"))

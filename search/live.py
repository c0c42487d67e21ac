"""The pool's live table: each worker's trial, epoch, images a second, last score; how far the study is; the best."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from search.feed import At, Event, Finished, Said
from search.progress import Terminal


@dataclass(slots=True)
class _Row:
    doing: str = "starting"
    share: str = ""
    rate: str = ""
    last: str = ""


class LiveTable:
    """A table that follows the workers on a terminal; elsewhere just the lines that stay."""

    def __init__(self, terminal: Terminal, count: int, headline: Callable[[], str]) -> None:
        """`headline` tells how the study stands; it is asked again whenever a trial is finished."""
        self._terminal, self._headline = terminal, headline
        self._rows = [_Row() for _ in range(count)]
        self._summary = headline()
        self._live: Live | None = None

    @contextmanager
    def shown(self) -> Iterator[LiveTable]:
        """Show it for as long as the block runs."""
        if not self._terminal.console.is_terminal:
            yield self
            return
        with Live(
            console=self._terminal.console, get_renderable=self._render, refresh_per_second=2, transient=True
        ) as self._live:
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

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for title, justify in (("worker", "right"), ("doing", "left"), ("", "right"), ("images/s", "right")):
            table.add_column(title, justify=justify)  # type: ignore[arg-type]
        table.add_column("last score", justify="right")
        for number, row in enumerate(self._rows):
            table.add_row(str(number), row.doing, row.share, row.rate, row.last)
        return Group(table, Text(self._summary, style="cyan"))

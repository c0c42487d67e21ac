"""Standard error as people see it: permanent lines and, on a terminal, a picture of the current state below them.

A separate thread writes, so that no work waits for a reader. A paused terminal (Ctrl-S) or a full pipe blocks only this
thread. Meanwhile the newest 10,000 lines are kept; afterwards only the latest picture is drawn.
"""

from __future__ import annotations

import io
import os
import re
import select
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console, Group, RenderableType
from rich.segment import Segment, SegmentLines

Picture = Callable[[int, int], RenderableType]
"""(columns, rows) -> a drawing of the current state for that size; what does not fit is cut off."""

_KEPT = 10_000
"""How many lines are kept for a reader; if there are more, the oldest are left out."""
_EVERY_S = 0.2
"""The time between two pictures."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """Remove control characters, which a terminal would obey."""
    return _CONTROL.sub("", text)


class Screen:
    """Shows lines and pictures on the `sys.stderr` of its creation. Only `close` waits for the reader."""

    def __init__(self) -> None:
        self.file = sys.stderr
        self._console = Console(file=self.file, highlight=False, markup=False, emoji=False)
        self._draws = self._console.is_interactive and self.file.isatty()
        self._pictures: list[Picture] = []
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._left_out = 0
        self.unfinished = ""
        """A line without its end yet, such as a library's progress bar."""
        self._rows: list[int] = []
        """The number of cells in each row of the picture on the screen."""
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False

    def line(self, text: str) -> None:
        """Show a permanent line."""
        with self._lock:
            self._left_out += len(self._lines) == _KEPT
            self._lines.append(plain(text))
        self._go_on()

    @contextmanager
    def showing(self, picture: Picture) -> Iterator[None]:
        """Show a picture below the present ones while the block runs."""
        with self._lock:
            self._pictures.append(picture)
        self._go_on()
        try:
            yield
        finally:
            with self._lock:
                self._pictures.remove(picture)
            self._wake.set()

    def close(self, patience: float | None = None) -> bool:
        """Wait until all lines are shown, at most `patience` seconds; returns whether they are."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(patience)
        return self._thread is None or not self._thread.is_alive()

    def _go_on(self) -> None:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._closing = False
                self._thread = threading.Thread(target=self._show, name="screen", daemon=True)
                self._thread.start()
        self._wake.set()

    def _show(self) -> None:
        closing = False
        while not closing:
            moving = self._draws and (self._pictures or self.unfinished)
            self._wake.wait(_EVERY_S if moving else None)
            self._wake.clear()
            with self._lock:
                closing, pictures, left_out = self._closing, list(self._pictures), self._left_out
                lines = list(self._lines)
                self._lines.clear()
                self._left_out = 0
            if left_out:
                lines.insert(0, f"({left_out:,} unread lines are left out.)")
            text = "".join(f"{line}\n" for line in lines)
            if self._draws:
                try:
                    columns, rows = self._size()
                    text = self._erased(columns) + text + self._drawn([] if closing else pictures, columns, rows)
                except Exception as error:  # a fault in a picture must not cost the lines
                    self._draws = False
                    text += f"(No more progress is shown: {error!r})\n"
            with suppress(OSError, ValueError):  # a lost reader or a full disk is no reason to end the work
                self._write(text)

    def _write(self, text: str) -> None:
        """Write everything, waiting for the reader. Avoid Python's buffer, because other threads may need its lock."""
        try:
            number = self.file.fileno()
        except OSError:  # not a file, but a replacement by a test or a notebook
            self.file.write(text)
            self.file.flush()
            return
        content = text.encode(self.file.encoding, "backslashreplace")
        while content:
            select.select([], [number], [])
            content = content[os.write(number, content[: select.PIPE_BUF]) :]

    def _size(self) -> tuple[int, int]:
        """Columns and rows, less one of each, which stays free. Not cached, because a terminal can be resized."""
        try:
            columns, rows = os.get_terminal_size(self.file.fileno())
        except (OSError, ValueError):
            columns, rows = 0, 0
        return max(1, (columns or 80) - 1), (rows or 24) - 1  # terminals without a size report 0

    def _erased(self, columns: int) -> str:
        """The control sequence that erases the last picture. A terminal that became narrower has wrapped its rows."""
        up = sum(max(1, -(-cells // (columns + 1))) for cells in self._rows)
        return f"\r\x1b[{up}A\x1b[J" if up else ""

    def _drawn(self, pictures: list[Picture], columns: int, rows: int) -> str:
        self._console.size = columns, rows
        shown = Group(*(picture(columns, rows) for picture in pictures), *filter(None, [self.unfinished]))
        cells = self._console.render_lines(shown, self._console.options.update_width(columns), pad=False)[:rows]
        self._rows = [Segment.get_line_length(row) for row in cells]
        with self._console.capture() as captured:
            self._console.print(SegmentLines(cells, new_lines=True), end="")
        return captured.get()


class LineWriter(io.TextIOBase):
    """Replaces `sys.stderr` while a screen is shown, so that libraries' output appears as lines."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._rest = screen, ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._screen.line(line.rsplit("\r")[-1])
        self._rest = self._rest.rsplit("\r")[-1] or self._rest
        self._screen.unfinished = plain(self._rest)
        return len(text)

    def end(self) -> None:
        """Show a last line that has no line end."""
        if self._rest:
            self.write("\n")

    def fileno(self) -> int:
        return self._screen.file.fileno()

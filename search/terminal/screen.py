"""Standard error, as people see it: lines that stay and, on a terminal, a picture below them of what goes on now.

A thread of its own writes it, so that no work waits for a reader. A terminal that is paused (Ctrl-S) or a pipe that is
full holds up this thread alone; meanwhile lines are kept, the newest 10,000 of them, and of the picture only the latest
state is drawn afterwards.
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
"""Draws what goes on now, for so many columns and rows; what does not fit is cut off."""

_KEPT = 10_000
"""Lines that wait for a reader; of more the oldest are left out."""
_EVERY_S = 0.2
"""Between two pictures."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """The text without control characters, which a terminal would obey."""
    return _CONTROL.sub("", text)


class Screen:
    """Shows lines and pictures on what was `sys.stderr` when it was made. Nothing but `close` waits for the reader."""

    def __init__(self) -> None:
        self.file = sys.stderr
        self._console = Console(file=self.file, highlight=False, markup=False, emoji=False)
        self._draws = self._console.is_interactive and self.file.isatty()
        self._pictures: list[Picture] = []
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._left_out = 0
        self.unfinished = ""
        """A line that has no end yet: others' progress."""
        self._rows: list[int] = []
        """The cells of each row of the picture that is on the screen."""
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._closing = False

    def line(self, text: str) -> None:
        """Show a line that stays."""
        with self._lock:
            self._left_out += len(self._lines) == _KEPT
            self._lines.append(plain(text))
        self._go_on()

    @contextmanager
    def showing(self, picture: Picture) -> Iterator[None]:
        """Show a picture, below those that are shown already, while the block runs."""
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
        """Wait until all lines are shown, at most so many seconds; returns whether they are."""
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
            with suppress(OSError, ValueError):  # the reader is gone or its disk full: no reason to end the work
                self._write(text)

    def _write(self, text: str) -> None:
        """Write it all, and wait where nobody reads. Not through Python's buffer: others may need its lock."""
        try:
            number = self.file.fileno()
        except OSError:  # no file, but what a test or a notebook puts in its place
            self.file.write(text)
            self.file.flush()
            return
        content = text.encode(self.file.encoding, "backslashreplace")
        while content:
            select.select([], [number], [])
            content = content[os.write(number, content[: select.PIPE_BUF]) :]

    def _size(self) -> tuple[int, int]:
        """Columns and rows, asked anew each time, for a terminal can be resized; the last of each stays free."""
        try:
            columns, rows = os.get_terminal_size(self.file.fileno())
        except (OSError, ValueError):
            columns, rows = 0, 0
        return max(1, (columns or 80) - 1), (rows or 24) - 1  # terminals without a size say that it is 0

    def _erased(self, columns: int) -> str:
        """What takes the last picture away. In a terminal that is narrower by now its rows have been broken."""
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
    """Stands in for `sys.stderr` while a screen is shown: what libraries write there is shown as lines."""

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
        """Show a last line that has no end."""
        if self._rest:
            self.write("\n")

    def fileno(self) -> int:
        return self._screen.file.fileno()

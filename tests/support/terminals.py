"""A real pseudo-terminal for tests, and what somebody would see in it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Callable, Sequence

from processes import wait_for

_CODE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|(.)", re.DOTALL)


class PseudoTerminal:
    """`device` is the side that programs write to; a thread reads the other one, unless it is paused."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.control, self.device = pty.openpty()
        self.resize(columns, rows)
        self._read: list[bytes] = []
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """All that was written so far."""
        return b"".join(self._read).decode("utf-8", "replace")

    def resize(self, columns: int, rows: int) -> None:
        """Give it another size; programs that have it as their terminal are sent SIGWINCH."""
        fcntl.ioctl(self.control, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def press(self, key: str) -> None:
        """Press Ctrl and that key: C interrupts, S pauses the screen, Q lets it go on."""
        os.write(self.control, bytes([ord(key) & 31]))

    def wait_for(self, text: str, process: subprocess.Popen[str]) -> None:
        wait_for(lambda: text in self.text or process.poll() is not None)
        assert text in self.text, self.text

    def end(self) -> str:
        """Close the device and return all that was written."""
        if self.device >= 0:
            os.close(self.device)
            self.device = -1
            self._reader.join()
        return self.text

    def _drain(self) -> None:
        while True:
            try:
                read = os.read(self.control, 65536)
            except OSError:  # nobody has the device any more
                return
            if not read:
                return
            self._read.append(read)


def seen(
    text: str, columns: int, before: Sequence[str] = ("",), on_row: Callable[[list[str]], None] = lambda _rows: None
) -> list[str]:
    """The rows, without spaces at their ends, that a terminal of so many columns shows once it was sent all of `text`.

    It knows what our screen sends: rows up, erase below, carriage return, colours. `before`: the rows that it shows
    already, the cursor in the last. `on_row` is given the rows at each new line.
    """
    rows, y, x = list(before), len(before) - 1, 0
    for number, code, character in _CODE.findall(text):
        if code == "A":
            y = max(0, y - int(number or 1))
        elif code == "J":
            rows[y:] = [rows[y][:x]]
        elif code:
            assert code == "m", f"unknown to this terminal: {number}{code}"
        elif character == "\r":
            x = 0
        elif character == "\n" or x == columns:
            y, x = y + 1, 0 if character != "\n" else x
            rows += [""] * (y + 1 - len(rows))
            on_row(rows)
        if character and character not in "\r\n":
            rows[y] = rows[y].ljust(x)[:x] + character + rows[y][x + 1 :]
            x += 1
    return [row.rstrip() for row in rows]


def full_pipe() -> tuple[int, int]:
    """(reading end, writing end) of a pipe that takes nothing more until somebody reads."""
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writing, b"." * (size - 1) + b"\n")
    return reading, writing

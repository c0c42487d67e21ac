"""Write files whole or not at all, and read them."""

from __future__ import annotations

import errno
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

Write = Callable[[], None]


def _once(write: Write) -> None:
    write()


_insist: ContextVar[Callable[[Write], None]] = ContextVar("insist", default=_once)


@contextmanager
def insisting(how: Callable[[Write], None]) -> Iterator[None]:
    """Let `how` carry out every write in the block; it may retry a write that raises OSError, as on a full disk."""
    token = _insist.set(how)
    try:
        yield
    finally:
        _insist.reset(token)


def insist(write: Write) -> None:
    """Carry out a write, retried as `insisting` decides. A write that fails must leave nothing behind."""
    _insist.get()(write)


def write_whole(path: Path, content: bytes) -> None:
    """Write a temporary neighbour and rename it, so that the file always holds either the old or the new content.

    Raises OSError, leaving nothing behind, if the disk is full or the folder is read-only.
    """
    insist(lambda: _write_whole(path, content))


def add_line(path: Path, text: str) -> None:
    """Append a line to a text file, whole or not at all. Raises OSError."""

    def write() -> None:
        with path.open("ab", buffering=0) as file:
            before, line = file.tell(), f"{text}\n".encode()
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError as error:
                file.truncate(before)
                error.filename = str(path)
                raise

    insist(write)


def write_at(file: BinaryIO, place: int, content: bytes) -> None:
    """Write at `place` and end the file there. Raises OSError; safe to repeat."""
    file.seek(place)
    file.truncate()
    file.write(content)
    file.flush()


def _write_whole(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    neighbour = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        neighbour.chmod(0o666 & ~_umask())
        neighbour.replace(path)
    except BaseException as error:
        neighbour.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.filename = str(path)  # an error from an open file does not name the file
        raise


def write_out(path: Path, content: bytes) -> None:
    """Create the folder, then `write_whole`; for files that the user asked for by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    write_whole(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """The content that `write_json` writes."""
    return (json.dumps(value, indent=1) + "\n").encode()


def read_json(path: Path) -> Any | None:
    """Read the value in a JSON file; None if there is no such file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def read_object(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file that can be recomputed; empty if the file is missing or damaged."""
    try:
        value = read_json(path)
    except (ValueError, OSError):
        return {}
    return value if isinstance(value, dict) else {}


def checksum(file: BinaryIO) -> dict[str, Any]:
    """Length and CRC-32 of an open file, JSON-ready. They detect any change of one to four consecutive bytes."""
    part = memoryview(bytearray(2**18))  # fits the processor's cache
    size = crc = 0
    while count := file.readinto(part):  # type: ignore[attr-defined]
        size, crc = size + count, zlib.crc32(part[:count], crc)
    return {"size_bytes": size, "crc32": f"{crc:08x}"}


def is_whole_archive(path: Path) -> bool:
    """Do all members of a zip archive, torch's file format, match their CRC-32? Reads no pickle."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except Exception:  # a damaged archive can raise nearly anything: BadZipFile, RuntimeError, NotImplementedError ...
        return False

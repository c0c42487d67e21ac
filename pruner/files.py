"""Files that are whole or absent."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: bytes) -> None:
    """Write a file by way of a neighbour and a rename: at any moment it holds the old content or the new, whole.

    Raises OSError, with nothing left behind, if the disk is full or the folder is read-only.
    """
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
            error.filename = str(path)  # writing to an open file, the system does not say which
        raise


def write_out(path: Path, content: bytes) -> None:
    """`write_whole`, and its folder first, for a file that somebody asked for by name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, whole or not at all."""
    write_whole(path, (json.dumps(value, indent=1) + "\n").encode())


def read_json(path: Path) -> Any | None:
    """The value in a JSON file, None if there is no such file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None

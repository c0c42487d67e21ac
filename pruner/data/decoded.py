"""A file of decoded images: an array (images, 3, side, side) of uint8 as .npy, written row by row.

Rows are appended to a partial file, so a killed decoding goes on where it was; when all are there, it takes its name.
Beside it, as JSON, are the files that could not be read, which have no row, and the hash of all rows.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from pruner.data.decoding import decode
from pruner.system.cores import in_threads
from pruner.system.files import insist, read_object, write_at, write_json

_SAFE_EVERY = 256
"""Images after which the partial file is made safe against a power cut."""
_HEADER = 128
"""Bytes of the header of such a .npy file, whatever its number of rows."""

Unreadable = dict[str, str]
"""File -> why it cannot be read."""


@dataclass(frozen=True, slots=True)
class About:
    """What is known of a finished file."""

    unreadable: Unreadable
    pixels: str
    """The hash of all its rows."""


def about(path: Path) -> About | None:
    """What is known of the file; None if it is not there or not finished."""
    said = read_object(path.with_suffix(".json"))
    return About(said["unreadable"], said["pixels"]) if "pixels" in said and path.exists() else None


def decode_files(
    path: Path,
    root: Path,
    names: Sequence[str],
    side: int,
    *,
    threads: int,
    on_images: Callable[[int], object],
    on_unreadable: Callable[[Unreadable], object],
) -> None:
    """Decode images into the file `path`, going on from where an earlier call was killed.

    Args:
        path: The .npy to write.
        root: The folder of the images.
        names: Their paths below it, in the order of the rows.
        side: Pixels a side.
        threads: How many are decoded at once.
        on_images: Called with n after every n images, and first with those that an earlier call had decoded.
        on_unreadable: Called with all unreadable files when there is one more. If it raises InputError, nothing is
            left of the file.

    Raises:
        OSError: The disk is full or read-only.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_outdated(path)
    unfinished, beside = path.with_suffix(".partial"), path.with_suffix(".json")
    row, digest = 3 * side * side, hashlib.sha256()
    bad: Unreadable = read_object(beside).get("unreadable", {})
    with unfinished.open("r+b" if unfinished.exists() else "wb+") as out:
        done = _read_rows(out, row, digest.update)
        left = [name for name in names if name not in bad][done:]
        on_images(len(names) - len(left))
        paths = (root / name for name in left)
        for name, found in zip(left, in_threads(threads, partial(_pixels, side), paths), strict=True):
            if isinstance(found, str):
                bad[name] = found
                try:
                    on_unreadable(bad)
                except ValueError:
                    unfinished.unlink()
                    beside.unlink(missing_ok=True)
                    raise
                os.fsync(out.fileno())  # which row is whose follows from what could not be read before it
                write_json(beside, {"unreadable": bad})
            else:
                pixels = found.tobytes()
                digest.update(pixels)
                insist(partial(write_at, out, _HEADER + done * row, pixels))
                done += 1
                if done % _SAFE_EVERY == 0:
                    os.fsync(out.fileno())
            on_images(1)
        insist(partial(_finish, out, done, side))
    write_json(beside, {"unreadable": bad, "pixels": digest.hexdigest()})
    unfinished.replace(path)


def _pixels(side: int, path: Path) -> NDArray[np.uint8] | str:
    """The image's pixels, or why it cannot be read."""
    try:
        return decode(path, side)
    except Exception as error:  # a damaged file can raise nearly anything
        said = (error.strerror if isinstance(error, OSError) else "") or str(error).replace(repr(str(path)), "").strip()
        return said.splitlines()[0][:100] if said else type(error).__name__


def _read_rows(out: BinaryIO, row: int, on_row: Callable[[bytes], object]) -> int:
    """How many whole rows a partial file holds; `on_row` is called with each."""
    out.seek(_HEADER)
    count = 0
    while len(found := out.read(row)) == row:
        on_row(found)
        count += 1
    return count


def _finish(out: BinaryIO, rows: int, side: int) -> None:
    """Write the header. Raises OSError; safe to repeat."""
    header = io.BytesIO()
    shape = (rows, 3, side, side)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    assert len(header.getvalue()) == _HEADER
    out.truncate(_HEADER + rows * 3 * side * side)  # drops a row that was half written
    out.seek(0)
    out.write(header.getvalue())
    out.flush()
    os.fsync(out.fileno())


def _delete_outdated(path: Path) -> None:
    """Delete what was decoded, wholly or in part, before the folder changed."""
    for old in list(_versions(path)):
        if old.stem != path.stem:
            old.unlink(missing_ok=True)


def _versions(path: Path) -> Iterator[Path]:
    """The files that are named as this one is but for what follows the last `-`."""
    name = path.stem.rpartition("-")[0]
    return (old for old in path.parent.iterdir() if old.stem.rpartition("-")[0] == name)

"""A folder of images as a data set: which files there are, of which class, and how they are divided. Reads no image.

    DIR/train/CLASS/*   and, where they are, DIR/val/CLASS/* (or valid, validation) and DIR/test/CLASS/*
    DIR/CLASS/*         alone, which is divided; so is DIR/train where neither val nor test is beside it

- Without `val`, the holdout is drawn from `train` as CIFAR-10's is; a tenth, unless told otherwise.
- With `val`, but no `test`, finished models are graded on `val`.
- With neither, a tenth is drawn first for `test`, whatever the seed: no seed turns test images into training images.

Each class is divided in proportion. Classes are numbered by name, and images are in the order of their file names,
whatever their classes; numbers in names count by value. So CIFAR-10, written to `train/airplane/29.png` and so on, has
its own labels, order and holdout.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pruner.data.datasets import held_out
from pruner.errors import InputError
from pruner.system.hashes import json_hash

SUFFIXES = (
    ".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif",
    ".tiff", ".webp",
)  # fmt: skip
"""Of the files that are taken for images, in lower case."""
_VALIDATION = ("val", "valid", "validation")
_NUMBERS = re.compile(r"([0-9]+)")
_SHARE = 10
"""One in so many is drawn for the holdout, or for test."""


class ImageFile(NamedTuple):
    """One file."""

    name: str
    """Its path below the folder."""
    label: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a data set, divided."""

    root: Path
    class_names: tuple[str, ...]
    train: tuple[ImageFile, ...]
    holdout: tuple[ImageFile, ...]
    test: tuple[ImageFile, ...]
    """The same as `holdout` where the folder has no test images."""
    drawn: tuple[int, int] | None
    """How many images were drawn for the holdout, and the seed; None if the folder says which they are."""
    stamp: str
    """A hash of all names, sizes and times of change: another one once the folder has changed."""
    notes: tuple[str, ...]

    @property
    def graded_on(self) -> str:
        """`test`, or `val` where there is none."""
        return "val" if self.test is self.holdout else "test"

    @property
    def files(self) -> tuple[ImageFile, ...]:
        """All files, each once."""
        return self.train + self.holdout + (() if self.graded_on == "val" else self.test)


def list_images(root: Path, *, holdout: int = 0, seed: int = 0) -> Listing:
    """List and divide the images of a folder.

    Args:
        root: The folder; the module's docstring says what it holds.
        holdout: How many images to draw for the holdout; 0: a tenth. Not for a folder that has a `val`.
        seed: Determines which.

    Raises:
        InputError: What the folder holds cannot be a data set.
    """
    given, notes = _given(root), list[str]()
    names = _classes(given.get("train", root))
    if len(names) < 2:
        only = f"one class only, {names[0]!r}" if names else "no folder for each class"
        raise InputError(f"{given.get('train', root)}: has {only}; a data set is CLASS/IMAGE for two classes or more")
    for part in ("val", "test"):
        if part in given:
            _check_classes(given[part], given["train"], names)
    lists = {part: _images(root, folder, names, notes) for part, folder in (given or {"train": root}).items()}
    stamp = json_hash(list(lists.values()))
    train, held, test = lists["train"], lists.get("val"), lists.get("test")
    if held is not None and holdout:
        raise InputError(f"holdout: {holdout} cannot be drawn where {given['val']} is the holdout; leave it out")
    _check_enough(given.get("train", root), train, names, 1 + (held is None) + (held is None and test is None))
    for part in ("val", "test"):
        if part in given:
            _check_enough(given[part], lists[part], names, 1)
    drawn = None
    if held is None and test is None:
        train, test = _divided(train, _tenth(train, names), len(names), 0)
        notes.append(f"{root}: has neither val nor test, so {len(test):,} images were drawn from all for test")
    if held is None:
        drawn = holdout or _tenth(train, names), seed
        train, held = _divided(train, drawn[0], len(names), seed)
        left = {file.label for file in train}
        if lost := [name for label, name in enumerate(names) if label not in left]:
            raise InputError(f"holdout: {drawn[0]} leaves no training image of the class {lost[0]!r}; give less")
    elif test is None:
        notes.append(f"{root}: has no test, so finished models are graded on {given['val'].name}, the search's holdout")
    return Listing(root, tuple(names), train, held, held if test is None else test, drawn, stamp, tuple(notes))


def _given(root: Path) -> dict[str, Path]:
    """Part -> its folder; empty where the classes' folders are at the top."""
    if not root.exists():
        raise InputError(f"{root}: there is no such folder of images")
    if not root.is_dir():
        raise InputError(f"{root}: is a file; a data set is a folder, CLASS/IMAGE or train/CLASS/IMAGE")
    train = root / "train"
    if not (train.is_dir() and _classes(train)):
        return {}
    found = [root / name for name in _VALIDATION if (root / name).is_dir()]
    if len(found) > 1:
        raise InputError(f"{root}: has both {found[0].name} and {found[1].name}; which is the holdout? Keep one")
    parts = {"train": train} | ({"val": found[0]} if found else {})
    return parts | ({"test": root / "test"} if (root / "test").is_dir() else {})


def _classes(folder: Path) -> list[str]:
    """The names of the folders in it, but for hidden ones."""
    return sorted(entry.name for entry in _entries(folder) if entry.is_dir() and not entry.name.startswith((".", "__")))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror})") from error


def _check_classes(folder: Path, train: Path, names: Sequence[str]) -> None:
    found = _classes(folder)
    if lost := [name for name in names if name not in found]:
        raise InputError(f"{folder}: lacks {_several(lost)} of {train}; each class must be in both")
    if foreign := [name for name in found if name not in names]:
        raise InputError(f"{folder}: has {_several(foreign)}, not in {train}; each class must be in both")


def _several(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"the class {names[0]!r}{more}"


def _images(root: Path, folder: Path, names: Sequence[str], notes: list[str]) -> tuple[ImageFile, ...]:
    """The images of a folder of classes, in order; a note tells of other files."""
    found: list[ImageFile] = []
    others: list[str] = []
    for label, name in enumerate(names):
        below = f"{(folder / name).relative_to(root)}{os.sep}"
        for entry in _entries(folder / name):
            if entry.name.startswith(".") or entry.is_dir():
                continue
            if not entry.name.lower().endswith(SUFFIXES):
                others.append(entry.path)
                continue
            try:
                known = entry.stat()
                size, changed = known.st_size, known.st_mtime_ns
            except OSError:  # a link to nothing: reading it will fail, and name it
                size = changed = 0
            found.append(ImageFile(below + entry.name, label, size, changed))
    if others:
        notes.append(f"{folder}: {len(others):,} files are no images by their suffix, such as {min(others)}; left out")
    return tuple(sorted(found, key=_place))


def _place(file: ImageFile) -> tuple[list[str | int], str]:
    parts = _NUMBERS.split(file.name.rpartition(os.sep)[2])  # text and numbers take turns
    return [int(part) if number % 2 else part for number, part in enumerate(parts)], file.name


def _check_enough(folder: Path, files: Sequence[ImageFile], names: Sequence[str], least: int) -> None:
    count = Counter(file.label for file in files)
    few = [(name, count[label]) for label, name in enumerate(names) if count[label] < least]
    if few:
        name, has = few[0]
        more = f" (and {len(few) - 1} more classes have too few)" if len(few) > 1 else ""
        raise InputError(f"{folder / name}: has {has} images, a class needs {least} here or more{more}")


def _tenth(files: Sequence[ImageFile], names: Sequence[str]) -> int:
    return max(round(len(files) / _SHARE), len(names))


def _divided(files: Sequence[ImageFile], count: int, classes: int, seed: int) -> tuple[tuple[ImageFile, ...], ...]:
    """(the rest, `count` of them), see `held_out`."""
    rest, held = held_out(labels_of(files), count, classes, seed)
    return tuple(files[i] for i in rest.tolist()), tuple(files[i] for i in held.tolist())


def labels_of(files: Sequence[ImageFile]) -> Tensor:
    """Their classes, int64."""
    return torch.tensor([file.label for file in files], dtype=torch.int64)

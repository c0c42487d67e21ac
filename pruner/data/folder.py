"""A folder of images as a data set: every image is decoded once, into files that are mapped into memory.

Each part (train, holdout, test) is a file of its own (`pruner.data.decoded`), in the order of its images, so a split is
the mapped file as it is: nothing is copied, all processes share it, and 100,000 photographs at 224 px take 15 GB of
disk and no memory of their own.

Images are stored at the resolution at which the network will classify them, or at the shorter side of the largest if
all are smaller: CIFAR-10 as a folder of PNGs stays at 32 pixels, and is enlarged by the code that enlarges CIFAR-10.
There is no margin around them for `random_shift`, which reflects an image at its edges and needs none.

The name of a file ends with a stamp of all images' names, sizes and times: once the folder changes, it is decoded anew
and the old file is deleted. One process at a time may decode into a cache; `search` sees to that by a lock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

import torch

from pruner.data.datasets import Dataset, Split
from pruner.data.decoded import Unreadable, about, decode_files
from pruner.data.decoding import short_side
from pruner.data.listing import Listing, labels_of
from pruner.data.mapped import Mapped
from pruner.errors import InputError
from pruner.system.cores import in_threads
from pruner.system.hashes import json_hash
from pruner.system.machine import cores

PARTS = ("train", "holdout", "test")
_MOST_UNREADABLE = 0.01
_NAMED = 5
"""How many unreadable files a message names."""
_SMALLEST = 8
"""Pixels a side of the smallest images that are stored."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A listed folder, and where its decoded images are kept."""

    listing: Listing
    cache: Path
    """The folder of the decoded files."""
    resolution: int

    def to_decode(self, parts: Collection[str] = PARTS) -> int:
        """How many images are in parts that are not decoded yet."""
        paths = {self._path(part): part for part in parts}
        return sum(len(getattr(self.listing, part)) for path, part in paths.items() if about(path) is None)

    def load(
        self,
        *,
        parts: Collection[str] = PARTS,
        mirrors: bool = True,
        threads: int = 0,
        on_images: Callable[[int], object] = bool,
    ) -> Dataset:
        """Map the decoded images into memory, decoding first what is not decoded yet.

        Args:
            parts: Those that are needed. The others stay empty, and none of their images is decoded.
            mirrors: Does a mirrored image keep its class?
            threads: How many images are decoded at once; 0: as many as there are cores.
            on_images: Called with n after every n images decoded, and with those that an earlier run had decoded.

        Raises:
            InputError: More than 1 % of the images cannot be read, or all of a class.
            OSError: The disk is full or read-only.
        """
        if self.to_decode(parts):
            self._decode(parts, threads or cores(), on_images)
        listing, bad, found = self.listing, Unreadable(), list[tuple[str, str, str]]()
        splits = dict.fromkeys(PARTS, Split(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), labels_of(())))
        for part in (part for part in PARTS if part in parts):
            path = self._path(part)
            known = about(path)
            assert known is not None
            bad |= known.unreadable
            labels = labels_of([file for file in getattr(listing, part) if file.name not in known.unreadable])
            if lost := set(range(len(listing.class_names))) - set(labels.tolist()):
                name = listing.class_names[min(lost)]
                raise InputError(f"{listing.root}: no image of the class {name!r} for {part} can be read")
            try:
                mapped = Mapped(path)
            except ValueError:
                raise InputError(f"{path}: damaged; delete it to have it decoded again") from None
            splits[part] = Split(mapped.array, labels, mapped)
            found.append((part, known.pixels, json_hash(labels.tolist())))
        notes = (f"{self._some(bad)} cannot be read and are left out: {_named(bad)}",) if bad else ()
        return Dataset(
            self._name, listing.class_names, **splits, mirrors=mirrors, graded_on=listing.graded_on,
            fingerprint=json_hash([listing.class_names, found]), notes=listing.notes + notes,
        )  # fmt: skip

    @property
    def _name(self) -> str:
        return re.sub(r"[^A-Za-z0-9._-]", "_", self.listing.root.absolute().name)[:40] or "folder"

    def _path(self, part: str) -> Path:
        """The decoded file of a part."""
        listing = self.listing
        part = "holdout" if part == "test" and listing.graded_on == "val" else part
        drawn = listing.drawn if part != "test" else None
        key = json_hash([str(listing.root.absolute()), self.resolution, drawn])
        return self.cache / f"{self._name}-{part}-{key}-{listing.stamp}.npy"

    def _decode(self, parts: Collection[str], threads: int, on_images: Callable[[int], object]) -> None:
        listing = self.listing
        needed = {self._path(part): [file.name for file in getattr(listing, part)] for part in parts}
        total = sum(map(len, needed.values()))
        side = self._side(threads)
        before = Unreadable()

        def check(bad: Unreadable) -> None:
            if len(before | bad) > _MOST_UNREADABLE * total:
                raise InputError(
                    f"{listing.root}: more than {_MOST_UNREADABLE:.0%} of its images cannot be read: "
                    f"{_named(before | bad)}; repair or delete them"
                )

        for path, names in needed.items():
            if about(path) is None:
                decode_files(
                    path, listing.root, names, side, threads=threads, on_images=on_images, on_unreadable=check
                )  # fmt: skip
            known = about(path)
            before |= known.unreadable if known else {}

    def _side(self, threads: int) -> int:
        """Pixels a side at which images are stored: the resolution, or the longest of their shorter sides."""
        longest = _SMALLEST
        paths = (self.listing.root / file.name for file in self.listing.files)
        for found in in_threads(threads, short_side, paths):
            longest = max(longest, found or 0)
            if longest >= self.resolution:  # of photographs, the first one settles it
                return self.resolution
        return longest

    def _some(self, bad: Unreadable) -> str:
        return f"{self.listing.root}: {len(bad):,} of {len(self.listing.files):,} images"


def _named(bad: Unreadable) -> str:
    some = "; ".join(f"{name} ({why})" for name, why in sorted(bad.items())[:_NAMED])
    return some + (f"; and {len(bad) - _NAMED:,} more" if len(bad) > _NAMED else "")

"""Arrays of uint8 in .npy files, mapped into memory: the disk holds them, and all processes share what is in memory."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_KEPT = 2**28
"""Bytes that are read before pages are given back: a quarter of a GiB."""


class Mapped:
    """A .npy file, mapped read-only: what writes to the array writes to memory of its own.

    Pages that were read once count as this process's memory as long as they stay mapped, though the system could take
    them back. So that a process never seems to hold a large file whole, it gives its pages back every quarter of a GiB;
    they stay in the system's cache, from which reading them again costs next to nothing.
    """

    def __init__(self, path: Path) -> None:
        """Raises ValueError if it is not a whole .npy file, OSError if it cannot be read."""
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
            begin = file.tell()
            if fortran or kind != np.uint8 or path.stat().st_size != begin + int(np.prod(shape)):
                raise ValueError(f"{path}: not a whole array of uint8")
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)  # torch takes no read-only memory
        self._read = 0
        self.array: Tensor = torch.from_numpy(np.frombuffer(self._map, np.uint8, offset=begin).reshape(shape))

    def was_read(self, count: int) -> None:
        """Tell that so many bytes were read."""
        self._read += count
        if self._read > _KEPT and hasattr(mmap, "MADV_DONTNEED"):
            self._read = 0
            self._map.madvise(mmap.MADV_DONTNEED)

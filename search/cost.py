"""What something cost: by the clock on the wall, and of all cores together."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost. The difference of two `Cost.now()` of a process is what was spent between them."""

    wall_seconds: float = 0.0
    """Of the clock on the wall."""
    cpu_seconds: float = 0.0
    """Of processors: all threads', and those of ended child processes (a compiler's). A busy or virtual machine that
    keeps a process waiting does not count; on a GPU this is its host's part alone."""

    @classmethod
    def now(cls) -> Self:
        """Since some moment in the past."""
        return cls(time.perf_counter(), sum(os.times()[:4]))

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall_seconds + other.wall_seconds, self.cpu_seconds + other.cpu_seconds)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall_seconds - other.wall_seconds, self.cpu_seconds - other.cpu_seconds)

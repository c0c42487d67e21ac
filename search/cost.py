"""What a computation costs: wall-clock time, and CPU time summed over all cores."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Cost:
    """A cost. The difference of two `Cost.now()` of one process is what it spent between them."""

    wall_seconds: float = 0.0
    """Wall-clock time."""
    cpu_seconds: float = 0.0
    """CPU time of all threads and of ended child processes (a compiler's). Time that a busy or virtual machine keeps
    the process waiting does not count. On a GPU, this is the host's part alone."""

    @classmethod
    def now(cls) -> Self:
        """The cost since some fixed moment in the past."""
        return cls(time.perf_counter(), sum(os.times()[:4]))

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall_seconds + other.wall_seconds, self.cpu_seconds + other.cpu_seconds)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.wall_seconds - other.wall_seconds, self.cpu_seconds - other.cpu_seconds)

"""How much work something took: by the clock on the wall, and of all cores together."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Work:
    """An amount of work. The difference of two `Work.now()` of a process is what it worked between them."""

    seconds: float = 0.0
    """Of the clock on the wall."""
    core_seconds: float = 0.0
    """Of processors: all threads', and those of ended child processes (a compiler's). A busy or virtual machine that
    keeps a process waiting does not count; on a GPU this is its host's part alone."""

    @classmethod
    def now(cls) -> Self:
        """Since some moment in the past."""
        return cls(time.perf_counter(), sum(os.times()[:4]))

    def __add__(self, other: Work) -> Work:
        return Work(self.seconds + other.seconds, self.core_seconds + other.core_seconds)

    def __sub__(self, other: Work) -> Work:
        return Work(self.seconds - other.seconds, self.core_seconds - other.core_seconds)

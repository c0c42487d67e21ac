"""What a trial is worth: the course's score, and the objectives a study can have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, model_validator

from pruner.schema import MFlops
from search.study.section import Section


class ScoreRule(Section):
    """The course's formula, by its five constants:

    score = ((mflops_worst - MFLOPs) / (mflops_worst - mflops_full)
             - accuracy_penalty * clamp(accuracy_full - accuracy, 0, 1)) * points
    """

    mflops_worst: MFlops = 200.0
    """A network of this many MFLOPs earns nothing for its size."""
    mflops_full: float = Field(45.0, ge=0, le=1e6)
    """A network of this many earns the full points; a smaller one more."""
    accuracy_full: float = Field(0.92, ge=0, le=1)
    """From this accuracy on there is no penalty."""
    accuracy_penalty: float = Field(10.0, gt=0, le=1e6)
    """Share of the points lost per unit of accuracy below that."""
    points: float = Field(45.0, gt=0, le=1e6)

    @model_validator(mode="after")
    def _check(self) -> ScoreRule:
        if not self.mflops_full < self.mflops_worst:
            raise ValueError(f"mflops_full = {self.mflops_full:g} must be below mflops_worst = {self.mflops_worst:g}")
        return self

    def __call__(self, mflops: float, accuracy: float) -> float:
        """The score of a network of that many MFLOPs and that accuracy in [0, 1]; it is not clamped at 0."""
        return (self._size(mflops) - self._penalty(accuracy)) * self.points

    def accuracy_at(self, score: float, mflops: float) -> float:
        """Which accuracy, up to the one without penalty, earns that score with that many MFLOPs."""
        return self.accuracy_full - (self._size(mflops) - score / self.points) / self.accuracy_penalty

    def mflops_at(self, score: float, accuracy: float) -> float:
        """How many MFLOPs earn that score at that accuracy: the lines of equal score in figures."""
        size = score / self.points + self._penalty(accuracy)
        return self.mflops_worst - size * (self.mflops_worst - self.mflops_full)

    def _size(self, mflops: float) -> float:
        return (self.mflops_worst - mflops) / (self.mflops_worst - self.mflops_full)

    def _penalty(self, accuracy: float) -> float:
        return self.accuracy_penalty * min(max(self.accuracy_full - accuracy, 0.0), 1.0)


DIRECTIONS: dict[str, Literal["minimize", "maximize"]] = {
    "score": "maximize",
    "accuracy": "maximize",
    "mflops": "minimize",
    "params": "minimize",
    "latency_ms": "minimize",
    "nonzero_bytes": "minimize",
}
"""What a study can optimise, and which way."""

BYTES_PER_PARAM = 4
"""Of 32-bit floats. As the course counts a sparse network's size: that of the parameters that are not zero."""


def masked(nonzero: int, params: int) -> bool:
    """Do masks leave so few parameters that it is worth telling?

    Files of older versions count the zeros of a fresh BatchNorm, under 1 %, as masks' (`pruner.measurement.measure`).
    """
    return nonzero < 0.99 * params


def fitness(objectives: Sequence[str], values: Mapping[str, float]) -> float:
    """What the best trial has most of: the score, or where size counts, the fewest bytes that are not zero."""
    return -values["nonzero_bytes"] if "nonzero_bytes" in objectives else values["score"]

"""How trials are scored: the course's score, and the objectives that a study can have."""

from __future__ import annotations

from collections.abc import Mapping
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
    """A network of this many MFLOPs earns the full points; a smaller one earns more."""
    accuracy_full: float = Field(0.92, ge=0, le=1)
    """At this accuracy and above there is no penalty."""
    accuracy_penalty: float = Field(10.0, gt=0, le=1e6)
    """Share of the points lost per unit of accuracy below `accuracy_full`."""
    points: float = Field(45.0, gt=0, le=1e6)

    @model_validator(mode="after")
    def _check(self) -> ScoreRule:
        if not self.mflops_full < self.mflops_worst:
            raise ValueError(f"mflops_full = {self.mflops_full:g} must be below mflops_worst = {self.mflops_worst:g}")
        return self

    def __call__(self, mflops: float, accuracy: float) -> float:
        """The score of a network with this many MFLOPs and this accuracy in [0, 1]; it is not clamped at 0."""
        return (self._size(mflops) - self._penalty(accuracy)) * self.points

    def accuracy_at(self, score: float, mflops: float) -> float:
        """The accuracy, up to `accuracy_full`, that earns this score with this many MFLOPs."""
        return self.accuracy_full - (self._size(mflops) - score / self.points) / self.accuracy_penalty

    def mflops_at(self, score: float, accuracy: float) -> float:
        """The MFLOPs that earn this score at this accuracy, for the lines of equal score in figures."""
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
"""What a study can optimise, and in which direction."""


def masked(nonzero: int, params: int) -> bool:
    """Do masks make enough parameters zero to be worth reporting?

    Files of older versions count the zeros of a fresh BatchNorm, under 1 %, as masked (`pruner.measurement.measure`).
    """
    return nonzero < 0.99 * params


def fitness(goal: str, values: Mapping[str, float]) -> float:
    """The value that is highest for the best trial: the goal's, or its negative where less is better."""
    return values[goal] if DIRECTIONS[goal] == "maximize" else -values[goal]

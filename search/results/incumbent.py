"""Compare studies by the best score that each had found for a given cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search.results.records import Record, finished


@dataclass(frozen=True, slots=True)
class Mark:
    """The state of a study after one of its trials has ended."""

    core_hours: float
    """The cost of all trials so far, including stopped and failed ones."""
    predicted: float | None
    """The best predicted score so far; None in a study without a predictor."""
    reached: float | None
    """The best measured score so far."""


Curves = Mapping[str, Sequence[Mark]]
"""By the names of studies: the marks of each."""


def score_over_time(found: Sequence[Record]) -> list[Mark]:
    """A mark for every trial that cost time, in order. For a study in parts, pass the trials of all parts."""
    seconds, predicted, reached, marks = 0.0, None, None, []
    counted = {id(r) for r in finished(found) if r.feasible}
    for r in found:
        if r.wall_seconds <= 0:
            continue
        seconds += r.cpu_seconds
        if id(r) in counted and r.score is not None:
            if r.predicted is None:
                reached = r.score if reached is None else max(reached, r.score)
            else:
                predicted = r.score if predicted is None else max(predicted, r.score)
        marks.append(Mark(seconds / 3600, predicted, reached))
    return marks


def work_to(score: float, marks: Sequence[Mark]) -> float | None:
    """Core-hours until a network reached at least `score`; None if none did."""
    return next((mark.core_hours for mark in marks if mark.reached is not None and mark.reached >= score), None)


def standings(curves: Curves) -> list[str]:
    """A sentence for every study: what it reached, and how fast it reached the last study's final score."""
    last = list(curves)[-1]
    goal = curves[last][-1].reached if curves[last] else None
    return [_standing(name, marks, last, goal, curves[last]) for name, marks in curves.items()]


def _standing(name: str, marks: Sequence[Mark], last: str, goal: float | None, reference: Sequence[Mark]) -> str:
    if not marks:
        return f"{name}: no work yet."
    end = marks[-1]
    scores = [
        f"{kind} {score:.2f}" for kind, score in (("predicted", end.predicted), ("reached", end.reached))
        if score is not None
    ]  # fmt: skip
    text = f"{name}: {', '.join(scores) or 'no network'} in {end.core_hours:.2f} core-hours"
    if name == last or goal is None:
        return f"{text}."
    mine, theirs = work_to(goal, marks), work_to(goal, reference)
    if mine is None or theirs is None:
        return f"{text}; it did not reach the {goal:.2f} of {last}."
    return f"{text}; the {goal:.2f} of {last} after {mine:.2f}, {theirs / mine:.1f} times as fast as its {theirs:.2f}."

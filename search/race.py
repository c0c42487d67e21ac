"""Studies raced against each other: the best score that each had found after so much work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.results import Record, finished


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a study stood when one of its trials had ended."""

    core_hours: float
    """Of work on all trials so far, those that were stopped or failed too."""
    foreseen: float | None
    """The best score to expect of what was looked at so far; None in a study without a forecast."""
    reached: float | None
    """The best score so far of networks that were measured as they are."""


def race(found: Sequence[Record]) -> list[Mark]:
    """A mark for every trial that took work, in their order. Of a study in parts: the trials of all parts."""
    seconds, foreseen, reached, marks = 0.0, None, None, []
    counted = {id(r) for r in finished(found) if r.feasible}
    for r in found:
        if r.seconds <= 0:
            continue
        seconds += r.core_seconds
        if id(r) in counted and r.score is not None:
            if r.predicted is None:
                reached = r.score if reached is None else max(reached, r.score)
            else:
                foreseen = r.score if foreseen is None else max(foreseen, r.score)
        marks.append(Mark(seconds / 3600, foreseen, reached))
    return marks

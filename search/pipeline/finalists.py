"""What was predicted for finalists, and what they reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search.pipeline.parts import Part
from search.results.records import Record, finished
from search.study.section import Observation
from search.study.spec import StudySpec


@dataclass(frozen=True, slots=True)
class Stop:
    """A network as one of the parts left it."""

    part: str
    record: Record


def observations(found: Sequence[Record]) -> list[Observation]:
    """(MFLOPs, untrained accuracy, trained accuracy) of each trial that was trained to its end."""
    done = [r for r in finished(found) if r.same_as is None and r.curve]
    return [(r.mflops, r.accuracy_before, r.accuracy) for r in done
            if r.mflops is not None and r.accuracy_before is not None and r.accuracy is not None]  # fmt: skip


def finalists(parts: Sequence[tuple[Part, StudySpec, Sequence[Record]]]) -> list[list[Stop]]:
    """The stops of every network that a later part trained, from the search that found it on; most stops first."""
    trained: dict[str, Stop] = {}
    starts: list[tuple[str, Stop]] = []
    for i, (part, _, found) in enumerate(parts):
        if part.train_only and not parts[i - 1][0].train_only:
            name, before = parts[i - 1][1].name, {r.number: r for r in parts[i - 1][2]}
            starts += [(f"{name}/{n}", Stop(name, before[n])) for n in before]
        if part.train_only:
            by_score = sorted(finished(found), key=lambda r: r.score or 0.0)  # the best of several learning rates
            trained |= {_parent(parts[i][1], r): Stop(part.name, r) for r in by_score}
    ways = []
    for key, stop in starts:
        way = [stop]
        while key in trained:
            stop = trained[key]
            key = f"{stop.part}/{stop.record.number}"
            way.append(stop)
        if len(way) > 1:
            ways.append(way)
    return sorted(ways, key=lambda way: (-len(way), -(way[-1].record.score or 0.0)))


def _parent(spec: StudySpec, record: Record) -> str:
    return str(record.sampled.get("parent", spec.space.parent))

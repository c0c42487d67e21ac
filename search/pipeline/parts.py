"""A study file's parts: searches, each cutting the winner of the one before, and the training of their finalists.

Each part is a study of its own, with its folder and its database beside the others', so workers, figures and exports
need to know nothing of parts. What a part's parents are is known when the part before it is finished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pruner.errors import InputError
from search.results.records import Record, best, finished
from search.study.spec import VARIED, StudySpec, from_content, one_line, read_study
from search.study.text import DENSE, merged

STEP_KEYS = (*VARIED, "trials", "hours", "sampler", "limits", "stopping", "forecast", "finalists", "watch_images",
             "measure_images")  # fmt: skip
"""What a step may change."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of the studies that a study file makes."""

    content: dict[str, Any]
    """Its file's content, but for the parents."""
    whole: str
    """The name of the study file that it is a part of."""
    takes: int
    """How many networks of the part before it are its parents; 0: it has none, or those that the file names."""
    differ: float = 0.0
    """By how much the parents' widths must differ, see `choose`."""
    rung: int = 0
    """Of the finalists' training, from 1; 0: it is a search."""

    @property
    def name(self) -> str:
        return self.content["name"]

    def study(self, parents: Sequence[str] = ()) -> StudySpec:
        """The study, with the networks that it goes on from, as `STUDY/NUMBER`."""
        if not self.takes:
            return from_content(self.content)
        parent = list(parents) if len(parents) > 1 else parents[0]
        return from_content(merged(self.content, {"space": {"parent": parent}}))


def read_parts(path: Path) -> list[Part]:
    """The parts of a study file. Raises InputError: one line with the file, the key, and what would be right."""
    spec = read_study(path)
    try:
        return parts(spec)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def parts(spec: StudySpec) -> list[Part]:
    """All parts of a study file, in their order. Raises ValueError where one of them would be no study."""
    content = spec.content(exclude={"steps"})
    steps = [content]
    if spec.steps:
        for step in spec.steps:
            _check_step(step)
        changes = [{**step, "name": f"{spec.name}.{step['name']}"} for step in spec.steps]
        steps = [merged(content, change) for change in changes]
        if len({step["name"] for step in steps}) < len(steps):
            raise ValueError("steps: each needs a name of its own")
    found: list[Part] = []
    for step in steps:
        search = {key: value for key, value in step.items() if key != "finalists"}
        found.append(Part(search, spec.name, takes=1 if found else 0))
        found += _rungs(step, search, spec.name)
    for part in found:
        try:
            part.study([DENSE])
        except ValidationError as error:
            raise ValueError(f"part {part.name}: {one_line(error)}") from None
    return found


def _check_step(step: Mapping[str, Any]) -> None:
    name = step.get("name")
    if not isinstance(name, str):
        raise ValueError("steps: each needs a name")
    if unknown := sorted(step.keys() - {"name", *STEP_KEYS}):
        raise ValueError(f"steps.{name}.{unknown[0]}: a step changes {', '.join(STEP_KEYS)}")


def _rungs(step: dict[str, Any], search: dict[str, Any], whole: str) -> list[Part]:
    try:
        spec = from_content(step)
    except ValidationError as error:
        raise ValueError(f"step {step['name']}: {one_line(error)}") from None
    if spec.finalists.rungs and spec.space.masks:
        raise ValueError("finalists: are not for studies of masks, whose zeros training them would lose")
    found = []
    for number, rung in enumerate(spec.finalists.rungs, 1):
        rate = rung.learning_rate or spec.space.learning_rate
        if not isinstance(rate, float):
            raise ValueError(f"finalists.rungs: rung {number} needs a learning_rate, since the search samples it")
        of_search = ("space", "rounds", "variants", "trials", "hours", "until_score", "stopping", "measure_images")
        content = {key: value for key, value in search.items() if key not in of_search}
        content |= {
            "name": f"{step['name']}.rung{number}",
            "space": {"learning_rate": rate},
            "sampler": {"name": "grid"},
            "forecast": {"known": [list(one) for one in rung.known]},
        }
        content = merged(content, {"train": _rung_training(rung.train)})
        found.append(Part(content, whole, rung.count, spec.finalists.differ if number == 1 else 0.0, number))
    return found


def _rung_training(changes: dict[str, Any]) -> dict[str, Any]:
    """Without the study's phases, if it says otherwise how long it is."""
    return changes if "phases" in changes or "epochs" not in changes else {**changes, "phases": []}


def choose(found: Sequence[Record], count: int, differ: float, dense: Mapping[str, int]) -> list[Record]:
    """The best `count` finished trials of which no two are closer than `differ`; fewer if there are no more.

    How far two are apart: the mean over all groups of channels of the difference in width, as a share of `dense`, the
    dense network's widths.
    """
    left = [record for record in finished(found) if record.feasible]
    chosen: list[Record] = []
    while left and len(chosen) < count:
        top = best(left)
        assert top is not None
        chosen.append(top)
        left = [r for r in left if r is not top and distance(r.widths, top.widths, dense) >= differ]
    return chosen


def distance(one: Mapping[str, int], other: Mapping[str, int], dense: Mapping[str, int]) -> float:
    """How far two networks' widths are apart, see `choose`."""
    return sum(abs(one[group] - other[group]) / width for group, width in dense.items()) / len(dense)

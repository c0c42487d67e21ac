"""The parts of a study file: several searches, each starting from the best networks of the previous one.

Each part is a study of its own, with its folder and its database beside the others', so workers, figures and exports
need not know about parts. A part's parents are known once the previous part is finished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pruner.errors import InputError
from pruner.schema import nearest
from search.results.records import Record, best, finished
from search.study.changes import Change
from search.study.section import Section
from search.study.sections import SearchSection
from search.study.space import Range
from search.study.spec import VARIED, StudySpec, from_content, one_line, read_study
from search.study.text import DENSE, merged

CHANGED = (*VARIED, "trials", "timeout_hours", "target_score", "sampler", "constraints", "early_stopping", "predictor",
           "epoch_eval_images", "eval_images")  # fmt: skip
"""The keys of a study file that a search may change."""
_OF_SEARCHING = ("space", "iterative", "variants", "trials", "timeout_hours", "target_score", "sampler",
                 "early_stopping", "predictor", "eval_images")  # fmt: skip
"""The file's keys that a `train_only` search ignores."""


@dataclass(frozen=True, slots=True)
class Part:
    """One of the studies that a study file consists of."""

    content: dict[str, Any]
    """The content of its study file, without the parents."""
    whole: str
    """The name of the study file that it belongs to."""
    parents: int = 0
    """How many networks of the previous part are its parents; 0: none, or those that the file names."""
    min_distance: float = 0.0
    """The least distance between the parents' widths, see `choose`."""
    needs_accuracy: float | None = None
    """The accuracy on the holdout below which the previous part's best network is the last."""
    holdout_flatters: float | None = None
    """By how much the holdout flatters, see `search.pipeline.result`; None: if it is the last, it has the result."""
    train_only: bool = False
    """Does it train its parents without pruning them?"""

    @property
    def name(self) -> str:
        return self.content["name"]

    def study(self, parents: Sequence[str] = ()) -> StudySpec:
        """The study, starting from the networks `parents`, each given as `STUDY/NUMBER`."""
        if not self.parents:
            return from_content(self.content)
        parent = list(parents) if len(parents) > 1 else parents[0]
        return from_content(merged(self.content, {"space": {"parent": parent}}))


def read_parts(path: Path, changes: Sequence[Change] = ()) -> list[Part]:
    """The parts of a study file, which `changes` apply to; a file that it continues stays as it is.

    Raises InputError: one line with the file, the key, and what would be right.
    """
    spec = read_study(path, changes)
    try:
        return parts(spec)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def parts(spec: StudySpec) -> list[Part]:
    """All parts of a study file, in order, those of a file that it continues first.

    Raises ValueError if one of them is not a valid study.
    """
    if not spec.searches:
        return [Part(spec.content(), spec.name)]
    if len({search.name for search in spec.searches}) < len(spec.searches):
        raise ValueError("searches: each needs a name of its own")
    found = read_parts(Path(spec.directory) / spec.continues) if spec.continues else []
    if spec.name in {part.whole for part in found}:
        raise ValueError(f"continues: {spec.continues} is a study named {spec.name}, too; give this one another name")
    for search in spec.searches:
        try:
            found.append(_part(spec, search, first=not found))
            study = found[-1].study([DENSE])
        except ValidationError as error:
            raise ValueError(f"searches.{search.name}: {one_line(error)}") from None
        if search.holdout_flatters is not None and (study.goal != "score" or study.graded_by is None):
            raise ValueError(
                f"searches.{search.name}.holdout_flatters: compares networks by the course's score, which is not the "
                "goal of this study"
            )
    return found


def _part(spec: StudySpec, search: SearchSection, *, first: bool) -> Part:
    where, changes, content = f"searches.{search.name}", search.changes, spec.content("searches", "continues")
    if unknown := sorted(changes.keys() - set(CHANGED)):
        raise ValueError(f"{where}: unknown key {unknown[0]}{nearest(unknown[0], [*CHANGED, *_own_keys()])}")
    for key in ("needs_accuracy", "holdout_flatters"):
        if first and getattr(search, key) is not None:
            raise ValueError(f"{where}.{key}: there is no search before it")
    if search.train_only:
        if first:
            raise ValueError(f"{where}.train_only: there is no search before it to take networks from")
        if spec.space.masks:
            raise ValueError(f"{where}.train_only: training would lose the zeros of this study's masks")
        content = {key: value for key, value in content.items() if key not in _OF_SEARCHING}
        changes = merged({"space": {"learning_rate": _rate(spec, search)}, "sampler": {"name": "grid"}}, changes)
        if extra := sorted(changes["space"].keys() - {"learning_rate"}):
            raise ValueError(f"{where}.space.{extra[0]}: a train_only search takes nothing but a learning_rate")
        if (train := changes.get("train")) and "epochs" in train and "phases" not in train:
            changes = {**changes, "train": {**train, "phases": []}}  # its epochs replace the file's phases
    content = merged(_without_other_ways(content, changes), {**changes, "name": f"{spec.name}.{search.name}"})
    if first:
        return Part(content, spec.name)
    return Part(
        content, spec.name, search.parents, search.min_distance, search.needs_accuracy, search.holdout_flatters,
        search.train_only,
    )  # fmt: skip


_WAYS = (
    ("pruning_ratio", "output_pruning_ratio"),
    ("global_pruning_ratio",),
    ("target_mflops", "allocation", "error_scale"),
)
"""The ways to say in [space] how many channels go, of which a study has one."""


def _without_other_ways(content: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The content without the file's way to say how many channels go, if a search says it in another way."""
    given = changes.get("space")
    way = next((way for way in _WAYS if isinstance(given, dict) and not given.keys().isdisjoint(way)), None)
    if way is None or not isinstance(space := content.get("space"), dict):
        return content
    others = {key for other in _WAYS if other != way for key in other}
    return {**content, "space": {key: value for key, value in space.items() if key not in others}}


def _own_keys() -> list[str]:
    return [key for key in SearchSection.model_fields if key not in Section.model_fields]


def _rate(spec: StudySpec, search: SearchSection) -> float | tuple[float, ...]:
    rate = search.changes.get("space", {}).get("learning_rate", spec.space.learning_rate)
    if isinstance(rate, dict | Range):
        raise ValueError(
            f"searches.{search.name}: give one space.learning_rate to train at, or a list to try; the file has a range"
        )
    return rate


def choose(found: Sequence[Record], count: int, min_distance: float, dense: Mapping[str, int]) -> list[Record]:
    """The best `count` finished trials of which no two are closer than `min_distance`; fewer if there are no more.

    The distance of two trials is the mean, over all channel groups, of their difference in width as a share of `dense`,
    the dense network's widths.
    """
    left = [record for record in finished(found) if record.feasible]
    chosen: list[Record] = []
    while left and len(chosen) < count:
        top = best(left)
        assert top is not None
        chosen.append(top)
        left = [r for r in left if r is not top and distance(r.widths, top.widths, dense) >= min_distance]
    return chosen


def distance(one: Mapping[str, int], other: Mapping[str, int], dense: Mapping[str, int]) -> float:
    """The distance between two networks' widths, see `choose`."""
    return sum(abs(one[group] - other[group]) / width for group, width in dense.items()) / len(dense)

"""A study file (TOML) -> `StudySpec`, strictly: an unknown key is an error that names the nearest known one."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from pruner.errors import InputError
from pruner.network.count import GRADER_RESOLUTION
from pruner.recipe import Iterative, MaskSettings, needs_teacher
from pruner.schema import Images, nearest, reason
from pruner.train import TrainSettings
from search.study.changes import Change, changed
from search.study.constraints import ConstraintsSection
from search.study.predictor import Predictor
from search.study.score import DIRECTIONS, ScoreRule
from search.study.section import MOST_TRIALS, FileName, Section
from search.study.sections import (
    DataSection,
    DenseSection,
    EarlyStoppingSection,
    LatencySection,
    PruneSection,
    SamplerSection,
    SearchSection,
)
from search.study.space import Range, Space
from search.study.text import merged, read_content


class StudySpec(Section):
    """A study file, read and checked."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    about: str = ""
    directory: FileName = "."
    """The folder that paths of parents are relative to. Left out: the study file's folder."""
    trials: int | None = Field(None, ge=1, le=MOST_TRIALS)
    """How many trials in all; a grid needs no number."""
    timeout_hours: float | None = Field(None, gt=0, le=1e6)
    """The study runs for no longer than this, over all its workers and restarts."""
    target_score: float | None = None
    """The study ends once a trial that meets the constraints reaches this score (on the holdout)."""
    seed: int = Field(0, ge=0, lt=2**63)
    objectives: tuple[str, ...] = ("score",)
    """What is optimised: score, accuracy, mflops, params, latency_ms, nonzero_bytes; of several, all trade-offs."""
    best_by: str | None = None
    """The objective by which one trial that meets the constraints is the best and is exported. Left out: a single
    objective itself; of several nonzero_bytes, or else the score."""
    epoch_eval_images: Images = 1000
    """Holdout images classified after each epoch, for learning curves and early stopping; 0: none."""
    eval_images: Images = 0
    """Holdout images that a finished trial is measured on; 0: all. A search without training needs few."""
    data: DataSection = DataSection()
    dense: DenseSection = DenseSection()
    space: Space = Space()
    prune: PruneSection = PruneSection()
    mask: MaskSettings = MaskSettings()
    iterative: Iterative = Iterative()
    train: TrainSettings = TrainSettings()
    score: ScoreRule = ScoreRule()
    constraints: ConstraintsSection = ConstraintsSection()
    latency: LatencySection = LatencySection()
    sampler: SamplerSection = SamplerSection()
    early_stopping: EarlyStoppingSection = EarlyStoppingSection()
    variants: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)
    """Named changes, such as `[variants."no averaging"]` with `train.ema_decay = 0`. Trials sample one as the parameter
    `variant`."""
    predictor: Predictor = Predictor()
    """With observations, trials are scored by the accuracy that they are predicted to reach after training."""
    searches: tuple[SearchSection, ...] = ()
    """`[[searches]]`: several searches, one after the other. Left out: one search."""
    continues: FileName | None = None
    """Another study file, whose searches come first, if they have not been run: the first search here starts from the
    best network they leave. The other file's data, dense network, [prune], [mask], [train] and [score] count here too;
    what it samples and its budget do not."""
    _content: dict[str, Any] = PrivateAttr(default_factory=dict)

    def model_post_init(self, context: Any, /) -> None:
        self._content.update((context or {}).get("content", {}))

    @model_validator(mode="after")
    def _check(self) -> StudySpec:
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives: name one or more, each once")
        for name in self.objectives:
            if name not in DIRECTIONS:
                raise ValueError(f"objectives: {name!r} is not one of {', '.join(DIRECTIONS)}")
        if self.best_by not in (None, *DIRECTIONS):
            raise ValueError(f"best_by: {self.best_by!r} is not one of {', '.join(DIRECTIONS)}")
        if self.early_stopping.name != "none":
            if len(self.objectives) > 1:
                raise ValueError("early_stopping: a study with several objectives cannot stop trials early")
            if self.objectives[0] not in ("score", "accuracy"):
                raise ValueError("early_stopping: needs the objective score or accuracy, which an epoch can change")
            if not self.epoch_eval_images:
                raise ValueError("early_stopping: needs epoch_eval_images above 0")
        endless = self.trials is None and self.timeout_hours is None and self.sampler.name != "grid"
        if self.continues and not self.searches:
            raise ValueError("continues: needs [[searches]], which start from the network that the other file leaves")
        if endless and not self.searches:
            raise ValueError("trials: how many? (give a number, or timeout_hours; only a grid needs neither)")
        for section, settings in (("train", self.train), ("dense", self.dense)):
            if settings.random_shift >= self.data.pixels:
                raise ValueError(
                    f"{section}.random_shift: {settings.random_shift} is not below {self.data.pixels}, the side of the "
                    "images in pixels"
                )
        if self.sampler.name == "grid":
            self._check_grid()
        for name in self.variants:
            self._check_variant(name)
        return self

    def _check_grid(self) -> None:
        size = max(1, len(self.variants))
        for name, dimension in self.space.dimensions().items():
            if isinstance(dimension, Range) and dimension.step is None:
                raise ValueError(f"space.{name}: a grid needs a list of choices, or a range with a step")
            values = dimension.values if isinstance(dimension, Range) else dimension
            size *= len(values) if isinstance(values, tuple) else 1
        if size > _LARGEST_GRID:
            raise ValueError(f"space: a grid of {size:,} points; at most {_LARGEST_GRID:,}, or another sampler")

    def _check_variant(self, name: str) -> None:
        if unknown := sorted(self.variants[name].keys() - set(VARIED)):
            raise ValueError(f"variants.{name}.{unknown[0]}: a variant changes {', '.join(VARIED)}")
        try:
            changed = self.variant(name)
        except ValidationError as error:
            raise ValueError(f"variants.{name}: {one_line(error)}") from None
        kept = ("calibration_images", "reconstruction_images")
        for key in self.variants[name].get("space", {}):
            if isinstance(getattr(self.space, key), tuple | dict | Range):
                raise ValueError(f"variants.{name}.space.{key}: the study samples it; give it one value in [space]")
        if any(getattr(changed.prune, key) != getattr(self.prune, key) for key in kept):
            raise ValueError(f"variants.{name}.prune: {' and '.join(kept)} are the study's")

    def variant(self, name: str) -> StudySpec:
        """The study with this variant's changes applied to all its trials."""
        return from_content(merged(self.content("variants"), self.variants[name]))

    def content(self, *exclude: str) -> dict[str, Any]:
        """The study file's content in JSON form, without the keys `exclude`."""
        return {key: value for key, value in self._content.items() if key not in exclude}

    @property
    def total_epochs(self) -> int:
        """Epochs of a trial, over all pruning steps and training phases."""
        return self.iterative.total_epochs + self.train.total_epochs

    @property
    def goal(self) -> str:
        """The objective by which a trial is the best."""
        several = "nonzero_bytes" if "nonzero_bytes" in self.objectives else "score"
        return self.best_by or (self.objectives[0] if len(self.objectives) == 1 else several)

    @property
    def graded_by(self) -> ScoreRule | None:
        """The rule that a finished network's score comes from; None in a study of another goal than the course's."""
        the_course = self.goal in ("score", "nonzero_bytes") and self.prune.count_resolution == GRADER_RESOLUTION
        return self.score if the_course else None

    @property
    def distills(self) -> bool:
        """Do any of its trials learn from the dense network's logits?"""
        specs = [self.variant(name) for name in self.variants] or [self]
        return any(needs_teacher(spec.train, spec.iterative) for spec in specs)


VARIED = ("space", "prune", "mask", "iterative", "train")
"""The sections that a variant may change."""

BUDGET_KEYS = ("about", "trials", "timeout_hours", "target_score", "directory")
"""The keys that may change in a study file without making it another study."""
_LARGEST_GRID = 100_000


def read_study(path: Path, changes: Sequence[Change] = ()) -> StudySpec:
    """Read a study file, with `changes` from the command line.

    Raises InputError: one line with the file, the key, and what would be right.
    """
    data = changed(read_content(path), changes)
    data.setdefault("name", path.stem)
    data["directory"] = str(path.absolute().parent / str(data.get("directory", ".")))
    try:
        return from_content(data)
    except ValidationError as error:
        raise InputError(f"{path}: {one_line(error)}") from None


def from_content(content: dict[str, Any]) -> StudySpec:
    """A study from a file's content. Raises ValidationError."""
    # Through JSON, where pydantic's strict mode accepts a list for a tuple, but no text for a number.
    return StudySpec.model_validate_json(json.dumps(content, default=str), strict=True, context={"content": content})


_TAGS = ("value", "choices", "range", "[key]")
"""Parts of pydantic's error paths that are not keys of the file."""
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")


def one_line(error: ValidationError) -> str:
    """What is wrong with a study file, and where."""
    details = sorted(error.errors(), key=lambda detail: detail["type"] not in _UNKNOWN)
    first = details[0]
    where = [str(part) for part in first["loc"] if part not in _TAGS]
    if first["type"] in _UNKNOWN:
        message = f"unknown key{nearest(where[-1], _keys_at(where[:-1]))}"
    elif first["type"] == "union_tag_invalid":
        message = "takes one value or a list to choose from, not a table"
    else:
        message = reason(first["type"], first["msg"], first["input"])
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{'.'.join(where)}: {message}{more}" if where else f"{message}{more}"


def _keys_at(where: list[str]) -> list[str]:
    """The keys of the table at that path."""
    kind: Any = StudySpec
    for part in where:
        hints = typing.get_type_hints(kind) if hasattr(kind, "__annotations__") else {}
        kind = hints.get(part, kind if part.isdigit() else Range)
        if typing.get_origin(kind) is tuple:
            kind = typing.get_args(kind)[0]
        if not (isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))):
            kind = Range
    return list(getattr(kind, "model_fields", None) or kind.__dataclass_fields__)


def differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """The differences between two study files in JSON form, a short text for each key."""
    found = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key} was {old!r}, is {new!r}")
    return found

"""A study file (TOML) -> `StudySpec`, strictly: an unknown key is an error that names the nearest known one."""

from __future__ import annotations

import json
import reprlib
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from pruner.errors import InputError
from search.study.predictor import Forecast
from search.study.score import DIRECTIONS, ScoreRule
from search.study.section import MOST_TRIALS, FileName, Images, Section, nearest
from search.study.sections import (
    BaseSection,
    DataSection,
    FinalistsSection,
    LatencySection,
    LimitsSection,
    MaskSection,
    PruneSection,
    RoundsSection,
    SamplerSection,
    StoppingSection,
    TrainSection,
)
from search.study.space import Range, Space
from search.study.text import merged, read_content


class StudySpec(Section):
    """A study file, read and checked."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    about: str = ""
    directory: FileName = "."
    """Where the paths of parents begin; left out: the folder that the study file is in."""
    trials: int | None = Field(None, ge=1, le=MOST_TRIALS)
    """How many in all; a grid needs none."""
    hours: float | None = Field(None, gt=0, le=1e6)
    """No longer than this is the study worked on, over all its workers and restarts."""
    until_score: float | None = None
    """No trial more once one that keeps to the limits has this score (on the holdout)."""
    seed: int = Field(0, ge=0, lt=2**63)
    objectives: tuple[str, ...] = ("score",)
    watch_images: Images = 1000
    """Holdout images classified after each epoch, for learning curves and early stopping; 0: none."""
    measure_images: Images = 0
    """Holdout images that a finished trial is measured on; 0: all. A search that only looks needs few."""
    data: DataSection = DataSection()
    base: BaseSection = BaseSection()
    space: Space = Space()
    prune: PruneSection = PruneSection()
    mask: MaskSection = MaskSection()
    rounds: RoundsSection = RoundsSection()
    train: TrainSection = TrainSection()
    score: ScoreRule = ScoreRule()
    limits: LimitsSection = LimitsSection()
    latency: LatencySection = LatencySection()
    sampler: SamplerSection = SamplerSection()
    stopping: StoppingSection = StoppingSection()
    variants: dict[str, dict[str, dict[str, Any]]] = Field(default_factory=dict)
    """`[variants."no averaging"]` with `train.average = 0`: a parameter `variant` that chooses among such changes."""
    forecast: Forecast = Forecast()
    """With known networks: trials are scored by what they will reach when trained through."""
    finalists: FinalistsSection = FinalistsSection()
    steps: tuple[dict[str, Any], ...] = ()
    """`[[steps]]`, each with a `name` and changes to this file: searches one after the other, each cutting the winner
    of the one before (`search.pipeline.parts`)."""

    @model_validator(mode="after")
    def _check(self) -> StudySpec:
        if not self.objectives or len(set(self.objectives)) < len(self.objectives):
            raise ValueError("objectives: name one or more, each once")
        for name in self.objectives:
            if name not in DIRECTIONS:
                raise ValueError(f"objectives: {name!r} is not one of {', '.join(DIRECTIONS)}")
        if self.stopping.name != "none":
            if len(self.objectives) > 1:
                raise ValueError("stopping: a study with several objectives cannot stop trials early")
            if self.objectives[0] not in ("score", "accuracy"):
                raise ValueError("stopping: needs the objective score or accuracy, which an epoch can change")
            if not self.watch_images:
                raise ValueError("stopping: needs watch_images above 0")
        if self.trials is None and self.hours is None and self.sampler.name != "grid":
            raise ValueError("trials: how many? (only a grid knows by itself; or give hours)")
        for section, shift in (("train", self.train.shift), ("base", self.base.shift)):
            if shift >= self.data.pixels:
                raise ValueError(f"{section}.shift: {shift} is not below {self.data.pixels}, the images' own pixels")
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
        kept = ("calibration_images", "repair_images")
        for key in self.variants[name].get("space", {}):
            if isinstance(getattr(self.space, key), tuple | dict | Range):
                raise ValueError(f"variants.{name}.space.{key}: the study samples it; give it one value in [space]")
        if any(getattr(changed.prune, key) != getattr(self.prune, key) for key in kept):
            raise ValueError(f"variants.{name}.prune: {' and '.join(kept)} are the study's")

    def variant(self, name: str) -> StudySpec:
        """The study in which all trials are of that variant."""
        return from_content(merged(self.content(exclude={"variants"}), self.variants[name]))

    def content(self, exclude: set[str]) -> dict[str, Any]:
        """What the study file says, in JSON form."""
        return self.model_dump(mode="json", exclude=exclude, exclude_unset=True)

    @property
    def total_epochs(self) -> int:
        """Of a trial, over all its rounds and phases."""
        return self.rounds.total_epochs + self.train.total_epochs


VARIED = ("space", "prune", "mask", "rounds", "train")
"""The sections that a variant may change."""

BUDGET_KEYS = ("about", "trials", "hours", "until_score", "directory")
"""What may change in a study file without making it another study."""
_LARGEST_GRID = 100_000


def read_study(path: Path) -> StudySpec:
    """Read a study file. Raises InputError: one line with the file, the key, and what would be right."""
    data = read_content(path)
    data.setdefault("name", path.stem)
    data["directory"] = str(path.absolute().parent / str(data.get("directory", ".")))
    try:
        return from_content(data)
    except ValidationError as error:
        raise InputError(f"{path}: {one_line(error)}") from None


def from_content(content: dict[str, Any]) -> StudySpec:
    """A study from a file's content. Raises ValidationError."""
    # By way of JSON, where "strict" still takes a list for a tuple, but no text for a number.
    return StudySpec.model_validate_json(json.dumps(content, default=str), strict=True)


def one_line(error: ValidationError) -> str:
    """What is wrong with a study file, and where."""
    details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    first = details[0]
    where = [str(part) for part in first["loc"] if str(part) not in ("value", "choices", "range")]
    if first["type"] == "extra_forbidden":
        message = f"unknown key{nearest(where[-1], _keys_at(where[:-1]))}"
    else:
        message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        message = message[0].lower() + message[1:]
        if not isinstance(first.get("input"), dict | BaseModel) and first["type"] != "value_error":
            message += f", not {reprlib.repr(first.get('input'))}"
    more = f" (and {len(details) - 1} more)" if len(details) > 1 else ""
    return f"{'.'.join(where)}: {message}{more}" if where else f"{message}{more}"


def _keys_at(where: list[str]) -> list[str]:
    model: Any = StudySpec
    for part in where:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        model = field.annotation if field is not None else Range
        if typing.get_origin(model) is not None or not isinstance(model, type):
            model = Range
    return list(model.model_fields)


def differences(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[str]:
    """What differs between two study files in JSON form, a short text for each key."""
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

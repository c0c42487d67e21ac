"""A study file (TOML) -> `StudySpec`, strictly: an unknown key is an error that names the nearest known one."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from pruner.errors import InputError
from pruner.recipe import IMPORTANCES, STAGES, Prune, Tune
from search.score import DIRECTIONS, ScoreRule


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(_Section):
    """A parameter sampled from an interval: `{ low = 0.0, high = 0.8 }`."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @model_validator(mode="after")
    def _check(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low:g} must be below high = {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError("a log range needs low > 0")
        if self.log and self.step is not None:
            raise ValueError("a range has a step or is logarithmic, not both")
        return self


def _kind(value: Any) -> str:
    if isinstance(value, dict | Range):
        return "range"
    return "choices" if isinstance(value, list | tuple) else "value"


_Choices = Annotated[tuple[float, ...], Field(min_length=1)]
_NameChoices = Annotated[tuple[str, ...], Field(min_length=1)]
Dimension = Annotated[
    Annotated[float, Tag("value")] | Annotated[_Choices, Tag("choices")] | Annotated[Range, Tag("range")],
    Discriminator(_kind),
]
"""A fixed value, a list to choose from, or a range."""
NameDimension = Annotated[Annotated[str, Tag("value")] | Annotated[_NameChoices, Tag("choices")], Discriminator(_kind)]


def _ends(dimension: Any) -> tuple[float, ...]:
    if isinstance(dimension, Range):
        return (dimension.low, dimension.high)
    return dimension if isinstance(dimension, tuple) else (dimension,)


class Space(_Section):
    """What is sampled. Cuts are fractions of channels; a stage that is not named is not cut."""

    importance: NameDimension = "l2"
    learning_rate: Dimension = 0.01
    cut: dict[str, Dimension] = Field(default_factory=dict)
    """Stage -> cut of its hidden widths, and of its output width too unless `output_cut` is given."""
    output_cut: dict[str, Dimension] | None = None
    global_cut: Dimension | None = None

    @model_validator(mode="after")
    def _check(self) -> Space:
        names = self.importance if isinstance(self.importance, tuple) else (self.importance,)
        for name in names:
            if name not in IMPORTANCES:
                raise ValueError(f"importance: {name!r} is not one of {', '.join(IMPORTANCES)}")
        if self.global_cut is not None and (self.cut or self.output_cut):
            raise ValueError("give either global_cut or cuts by stage, not both")
        cuts: list[tuple[str, Any]] = [("global_cut", self.global_cut)] if self.global_cut is not None else []
        for key, by_stage, stages in (("cut", self.cut, STAGES), ("output_cut", self.output_cut or {}, STAGES[:-1])):
            for stage, dimension in by_stage.items():
                if stage not in stages:
                    raise ValueError(f"{key}.{stage}: unknown stage{_nearest(stage, list(stages))}")
                cuts.append((f"{key}.{stage}", dimension))
        for where, dimension in cuts:
            for end in _ends(dimension):
                if not 0 <= end < 1:
                    raise ValueError(f"{where}: a cut is a fraction of channels in [0, 1), not {end:g}")
        if min(_ends(self.learning_rate)) <= 0:
            raise ValueError("learning_rate: must be above 0")
        return self


class DataSection(_Section):
    """Which images."""

    name: Literal["cifar10", "digits"] = "cifar10"
    root: str | None = None
    """Folder with the data set; the option --data-root and CIFAR10_ROOT come first."""
    holdout: int = Field(0, ge=0)
    """How many training images the search looks at instead of training on them; 0: the data set's usual number."""
    resolution: int = Field(224, ge=8)
    """Pixels a side at which the holdout, and in the end the test images, are classified."""


class TrainSection(_Section):
    """How a network is trained; the keys of `pruner.recipe.Tune`, where each is explained."""

    epochs: int = Field(1, ge=0)
    images_per_epoch: int = Field(0, ge=0)
    batch: int = Field(64, ge=2)
    resolution: int | None = Field(None, ge=8)
    """Left out: as the holdout is classified at."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(4e-5, ge=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip: float = Field(0.0, ge=0)
    flip: bool = True
    shift: int = Field(2, ge=0)

    def tune(self, learning_rate: float, seed: int, data: DataSection) -> Tune:
        """The training part of a recipe."""
        values: dict[str, Any] = {field.name: getattr(self, field.name, None) for field in dataclasses.fields(Tune)}
        values |= {"learning_rate": learning_rate, "seed": seed, "resolution": self.resolution or data.resolution}
        return Tune(**values)


class BaseSection(TrainSection):
    """The dense network: where it starts, and how it is trained if it is not given."""

    init: str = "imagenet"
    """`imagenet`, `random`, or a .pth to start from."""
    file: str | None = None
    """A finished dense network; the option --base comes first, and for CIFAR-10 PRUNE_SEARCH_BASE after it."""
    learning_rate: float = Field(0.01, gt=0)


class PruneSection(_Section):
    """How every trial cuts, beside what is sampled; the keys of `pruner.recipe.Prune`."""

    minimum: int = Field(1, ge=1)
    multiple: int = Field(1, ge=1)
    ignore: tuple[str, ...] = ()
    normalizer: Literal["none", "mean", "max", "sum"] = "mean"
    calibration_images: int = Field(128, ge=1)
    """Training images whose gradients rank channels for taylor and hessian."""

    @model_validator(mode="after")
    def _check(self) -> PruneSection:
        Prune(ignore=self.ignore)
        return self


class LimitsSection(_Section):
    """What a network must keep to. A plan beyond a limit on MFLOPs is skipped before any training."""

    mflops_at_most: float | None = None
    mflops_at_least: float | None = None
    accuracy_at_least: float | None = Field(None, ge=0, le=1)


class SamplerSection(_Section):
    """How parameters are chosen."""

    name: Literal["tpe", "gp", "random", "grid", "nsga2"] = "tpe"
    startup_trials: int = Field(10, ge=1)
    """Random trials before tpe and gp begin to learn; for nsga2 the size of a generation."""
    lag: int = Field(4, ge=0)
    """A trial learns from the results up to `lag` trials before it, so that a rerun draws the same however many workers
    there are; more workers than this wait for each other. 0: learn from whatever is finished, which is chance."""


class StoppingSection(_Section):
    """Ending hopeless trials between epochs."""

    name: Literal["none", "asha", "median", "hyperband"] = "none"
    warmup_epochs: int = Field(1, ge=0)
    """No trial is stopped before it has had this many."""


class StudySpec(_Section):
    """A study file, read and checked."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    about: str = ""
    trials: int | None = Field(None, ge=1)
    """How many in all; a grid needs none."""
    hours: float | None = Field(None, gt=0)
    """No longer than this is the study worked on, over all its workers and restarts."""
    until_score: float | None = None
    """No trial more once one that keeps to the limits has this score (on the holdout)."""
    seed: int = Field(0, ge=0)
    objectives: tuple[str, ...] = ("score",)
    watch_images: int = Field(1000, ge=0)
    """Holdout images classified after each epoch, for learning curves and early stopping; 0: none."""
    data: DataSection = DataSection()
    base: BaseSection = BaseSection()
    space: Space = Space()
    prune: PruneSection = PruneSection()
    train: TrainSection = TrainSection()
    score: ScoreRule = ScoreRule()
    limits: LimitsSection = LimitsSection()
    sampler: SamplerSection = SamplerSection()
    stopping: StoppingSection = StoppingSection()

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
        if self.score.mflops_worst == self.score.mflops_full:
            raise ValueError("score: mflops_worst and mflops_full must differ")
        return self


BUDGET_KEYS = ("about", "trials", "hours", "until_score")
"""What may change in a study file without making it another study."""


def read_study(path: Path) -> StudySpec:
    """Read a study file. Raises InputError: one line with the file, the key, and what would be right."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(
            f"{path}: cannot be read ({reason}); give a study file such as studies/quickstart.toml"
        ) from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {error}") from None
    data.setdefault("name", path.stem)
    try:
        # By way of JSON, where "strict" still takes a list for a tuple, but no text for a number.
        return StudySpec.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        raise InputError(f"{path}: {_one_line(error)}") from None


def _one_line(error: ValidationError) -> str:
    details = sorted(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
    first = details[0]
    where = [str(part) for part in first["loc"] if str(part) not in ("value", "choices", "range")]
    if first["type"] == "extra_forbidden":
        message = f"unknown key{_nearest(where[-1], _keys_at(where[:-1]))}"
    else:
        message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
        message = message[0].lower() + message[1:]
        if not isinstance(first.get("input"), dict | BaseModel) and first["type"] != "value_error":
            message += f", not {first.get('input')!r}"
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


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"


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

"""The sections of a study file, each checked for itself; `search.study_file` puts them together."""

from __future__ import annotations

import dataclasses
import difflib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from pruner.recipe import IMPORTANCES, MASK_IMPORTANCES, SPREADS, STAGES, TOLERANCES, WEIGHT_STAGES, Prune, Tune


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(Section):
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


class Space(Section):
    """What is sampled. Cuts are fractions of channels; a stage that is not named is not cut."""

    importance: NameDimension = "l2"
    learning_rate: Dimension = 0.01
    cut: dict[str, Dimension] = Field(default_factory=dict)
    """Stage -> cut of its hidden widths, and of its output width too unless `output_cut` is given."""
    output_cut: dict[str, Dimension] | None = None
    global_cut: Dimension | None = None
    target_mflops: Dimension | None = None
    """Millions of operations instead of cuts: the widths are chosen for it."""
    spread: NameDimension = "exchange"
    """How: `uniform`, `error` or `exchange`; see `pruner.recipe.Prune`."""
    tolerance: dict[str, Dimension] = Field(default_factory=dict)
    """Stage, or `output` -> how much more error is tolerated there when a target is spread."""
    sparsity: dict[str, Dimension] = Field(default_factory=dict)
    """Stage (also stem, classifier), or a layer's own name as `prune-search scan` writes it -> fraction of its weights
    that becomes zero."""
    global_sparsity: Dimension | None = None
    """The same for the whole network, all weights competing."""
    mask_importance: NameDimension = "magnitude"
    masking: NameDimension = "one-shot"
    """`one-shot`, or `gradual`: while the network is trained."""

    @property
    def masks(self) -> bool:
        """Do trials make weights zero?"""
        return bool(self.sparsity) or self.global_sparsity is not None

    @model_validator(mode="after")
    def _check(self) -> Space:
        for key, names, known in (
            ("importance", self.importance, IMPORTANCES),
            ("mask_importance", self.mask_importance, MASK_IMPORTANCES),
            ("spread", self.spread, SPREADS),
            ("masking", self.masking, ("one-shot", "gradual")),
        ):
            for name in names if isinstance(names, tuple) else (names,):
                if name not in known:
                    raise ValueError(f"{key}: {name!r} is not one of {', '.join(known)}")
        if self.global_sparsity is not None and self.sparsity:
            raise ValueError("give either global_sparsity or sparsities by stage, not both")
        for stage, dimension in (*self.sparsity.items(), ("", self.global_sparsity or 0.0)):
            if stage and stage not in WEIGHT_STAGES and not stage.endswith(".weight"):
                raise ValueError(f"sparsity.{stage}: unknown stage{nearest(stage, list(WEIGHT_STAGES))}")
            if not all(0 <= end <= 1 for end in _ends(dimension)):
                where = f"sparsity.{stage}" if stage else "global_sparsity"
                raise ValueError(f"{where}: a sparsity is a fraction of weights in [0, 1]")
        if self.global_cut is not None and (self.cut or self.output_cut):
            raise ValueError("give either global_cut or cuts by stage, not both")
        if self.target_mflops is not None:
            if self.cut or self.output_cut or self.global_cut is not None:
                raise ValueError("give either target_mflops or cuts, not both")
            if min(_ends(self.target_mflops)) <= 0:
                raise ValueError("target_mflops: must be above 0")
        for name, dimension in self.tolerance.items():
            if name not in TOLERANCES:
                raise ValueError(f"tolerance.{name}: unknown stage{nearest(name, list(TOLERANCES))}")
            if self.target_mflops is None:
                raise ValueError(f"tolerance.{name}: only says how target_mflops is spread, which is not given")
            if min(_ends(dimension)) <= 0:
                raise ValueError(f"tolerance.{name}: must be above 0")
        cuts: list[tuple[str, Any]] = [("global_cut", self.global_cut)] if self.global_cut is not None else []
        for key, by_stage, stages in (("cut", self.cut, STAGES), ("output_cut", self.output_cut or {}, STAGES[:-1])):
            for stage, dimension in by_stage.items():
                if stage not in stages:
                    raise ValueError(f"{key}.{stage}: unknown stage{nearest(stage, list(stages))}")
                cuts.append((f"{key}.{stage}", dimension))
        for where, dimension in cuts:
            for end in _ends(dimension):
                if not 0 <= end < 1:
                    raise ValueError(f"{where}: a cut is a fraction of channels in [0, 1), not {end:g}")
        if min(_ends(self.learning_rate)) <= 0:
            raise ValueError("learning_rate: must be above 0")
        return self


class DataSection(Section):
    """Which images."""

    name: Literal["cifar10", "digits"] = "cifar10"
    root: str | None = None
    """Folder with the data set; the option --data-root and CIFAR10_ROOT come first."""
    holdout: int = Field(0, ge=0)
    """How many training images the search looks at instead of training on them; 0: the data set's usual number."""
    resolution: int = Field(224, ge=8)
    """Pixels a side at which the holdout, and in the end the test images, are classified."""


class TrainSection(Section):
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


class PruneSection(Section):
    """How every trial cuts, beside what is sampled; the keys of `pruner.recipe.Prune`."""

    minimum: int = Field(1, ge=1)
    multiple: int = Field(1, ge=1)
    ignore: tuple[str, ...] = ()
    normalizer: Literal["none", "mean", "max", "sum"] = "mean"
    calibration_images: int = Field(128, ge=1)
    """Training images whose gradients rank channels for taylor and hessian."""
    repair: bool = False
    """Re-fit the layers that read what is cut, in closed form, before any training."""
    repair_images: int = Field(512, ge=1)
    """Training images for that, and for the importance `reconstruction`."""

    @model_validator(mode="after")
    def _check(self) -> PruneSection:
        Prune(ignore=self.ignore)
        return self


class MaskSection(Section):
    """How gradual masks get to their sparsity; the keys of `pruner.recipe.Mask`."""

    ramp: float = Field(0.6, gt=0, le=1)
    updates: int = Field(10, ge=1)


class LimitsSection(Section):
    """What a network must keep to. A plan beyond a limit on MFLOPs or latency is skipped before any training."""

    mflops_at_most: float | None = None
    mflops_at_least: float | None = None
    latency_ms_at_most: float | None = Field(None, gt=0)
    accuracy_at_least: float | None = Field(None, ge=0, le=1)


class LatencySection(Section):
    """How a network's latency is measured: on the CPU, after the cut, before any training."""

    backend: Literal["torch", "onnxruntime"] = "torch"
    threads: int = Field(1, ge=1)
    batch: int = Field(1, ge=1)
    runs: int = Field(30, ge=1)
    """Of which the median counts."""


class SamplerSection(Section):
    """How parameters are chosen."""

    name: Literal["tpe", "gp", "random", "grid", "nsga2"] = "tpe"
    startup_trials: int = Field(10, ge=1)
    """Random trials before tpe and gp begin to learn; for nsga2 the size of a generation."""
    lag: int = Field(4, ge=0)
    """A trial learns from the results up to `lag` trials before it, so that a rerun draws the same however many workers
    there are; more workers than this wait for each other. 0: learn from whatever is finished, which is chance."""


class StoppingSection(Section):
    """Ending hopeless trials between epochs."""

    name: Literal["none", "asha", "median", "hyperband"] = "none"
    warmup_epochs: int = Field(1, ge=0)
    """No trial is stopped before it has had this many."""


def nearest(name: str, known: list[str]) -> str:
    """The end of a message about an unknown name: what may have been meant."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"

"""The sections of a study file, each checked for itself; `search.study.spec` puts them together."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Literal

from pydantic import Field, model_validator

from pruner.recipe import Prune
from pruner.tune import Execution, Optimizer, Phase, Rounds, Schedule, Tune
from search.study.section import MOST_TRIALS, Batch, Epochs, FileName, Images, Known, MFlops, Pixels, Rate, Section

_PIXELS = {"cifar10": 32, "digits": 8}
"""A side of the data set's own images."""


class DataSection(Section):
    """Which images."""

    name: Literal["cifar10", "digits"] = "cifar10"
    root: FileName | None = None
    """Folder with the data set; the option --data-root and CIFAR10_ROOT come first."""
    holdout: Images = 0
    """How many training images the search looks at instead of training on them; 0: the data set's usual number."""
    resolution: Pixels = 224
    """Pixels a side at which the holdout, and in the end the test images, are classified."""

    @property
    def pixels(self) -> int:
        """A side of the images as they are."""
        return _PIXELS[self.name]


class PhaseSection(Section):
    """A part of the training; the keys of `pruner.tune.Phase`. What is left out is as in [train]."""

    epochs: Epochs = Field(1, ge=1)
    images_per_epoch: Images | None = Field(None, ge=2)
    batch: Batch | None = None
    resolution: Pixels | None = None
    rate: float = Field(1.0, gt=0, le=1000)
    """Its learning rate, as a multiple of the trial's."""
    schedule: Schedule | None = None
    warmup: float | None = Field(None, ge=0, lt=1)
    execution: Execution | None = None


class TrainSection(Section):
    """How a network is trained; the keys of `pruner.tune.Tune`, where each is explained."""

    epochs: Epochs = Field(1, ge=0)
    images_per_epoch: Images = 0
    batch: Batch = 64
    resolution: Pixels | None = None
    """Left out: as the holdout is classified at."""
    optimizer: Optimizer = "sgd"
    schedule: Schedule = "cosine"
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(4e-5, ge=0, le=10)
    warmup: float = Field(0.1, ge=0, lt=1)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip: float = Field(0.0, ge=0, le=1e6)
    flip: bool = True
    shift: int = Field(2, ge=0, lt=max(_PIXELS.values()))
    temperature: float = Field(0.0, ge=0, le=1000)
    """Above 0: trials learn from the dense network's logits, which are found once for all training images."""
    hard_labels: float = Field(0.1, ge=0, le=1000)
    average: float = Field(0.0, ge=0, lt=1)
    reestimate: Images = 0
    execution: Execution = "auto"
    """auto: what is measured to be fastest, where training is long enough to pay for the measuring."""
    phases: tuple[PhaseSection, ...] = ()
    """`[[train.phases]]`, one after the other; then `epochs` above does not count."""

    @model_validator(mode="after")
    def _check(self) -> TrainSection:
        for name in ("images_per_epoch", "reestimate"):
            if getattr(self, name) == 1:
                raise ValueError(f"{name}: BatchNorm needs 2 images or more, not 1")
        if self.average and not self.reestimate:
            raise ValueError("average: needs reestimate, how many images find BatchNorm's statistics anew (say 2000)")
        return self

    @property
    def total_epochs(self) -> int:
        """Over all phases."""
        return sum(phase.epochs for phase in self.phases) if self.phases else self.epochs

    def tune(self, learning_rate: float, seed: int, data: DataSection) -> Tune:
        """The training part of a recipe."""
        values: dict[str, Any] = {field.name: getattr(self, field.name, None) for field in dataclasses.fields(Tune)}
        values |= {"learning_rate": learning_rate, "seed": seed, "resolution": self.resolution or data.resolution}
        values["phases"] = tuple(Phase(**phase.model_dump()) for phase in self.phases)
        return Tune(**values)


class BaseSection(TrainSection):
    """The dense network: where it starts, and how it is trained if it is not given."""

    init: FileName = "imagenet"
    """`imagenet`, `random`, or a .pth to start from."""
    file: FileName | None = None
    """A finished dense network; the option --base comes first, and for CIFAR-10 PRUNE_SEARCH_BASE after it."""
    learning_rate: Rate = 0.01

    @model_validator(mode="after")
    def _check_base(self) -> BaseSection:
        if self.temperature:
            raise ValueError("temperature: the dense network has none to learn from")
        return self


class PruneSection(Section):
    """How every trial cuts, beside what is sampled; the keys of `pruner.recipe.Prune`."""

    minimum: int = Field(1, ge=1, le=1280)  # the widest layer has so many channels
    multiple: int = Field(1, ge=1, le=1280)
    ignore: tuple[str, ...] = ()
    normalizer: Literal["none", "mean", "max", "sum"] = "mean"
    calibration_images: Images = Field(128, ge=1)
    """Training images whose gradients rank channels for taylor and hessian."""
    repair_images: Images = Field(512, ge=1)
    """Training images for repair, and for the importance `reconstruction`."""

    @model_validator(mode="after")
    def _check(self) -> PruneSection:
        Prune(ignore=self.ignore)
        return self


class MaskSection(Section):
    """How masks get to their sparsity; the keys of `pruner.recipe.Mask`."""

    ramp: float = Field(0.6, gt=0, le=1)
    updates: int = Field(10, ge=1, le=100_000)
    rounds: int = Field(1, ge=1, le=1000)


class RoundsSection(Section):
    """The way to a plan in several cuts; the keys of `pruner.tune.Rounds`. Left out: one cut."""

    count: int = Field(1, ge=1, le=1000)
    mflops: tuple[MFlops, ...] = ()
    train: PhaseSection = PhaseSection()

    @model_validator(mode="after")
    def _check(self) -> RoundsSection:
        self.recipe()
        return self

    @property
    def total_epochs(self) -> int:
        """Of the trainings between cuts."""
        return (len(self.mflops) or self.count - 1) * self.train.epochs

    def recipe(self) -> Rounds | None:
        """The rounds of a recipe; None if there is one cut only."""
        if self.count == 1 and not self.mflops:
            return None
        return Rounds(count=self.count, mflops=self.mflops, phase=Phase(**self.train.model_dump()))


class RungSection(Section):
    """A training of finalists. What is left out, down to the keys of [train], is as in the study."""

    count: int = Field(ge=1, le=MOST_TRIALS)
    """How many networks: the best of the part before."""
    learning_rate: Rate | None = None
    """Left out: the study's, if that has one only."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Changes to [train]."""
    known: tuple[Known, ...] = ()
    """What the forecast after this rung is made from, see [forecast]."""


class FinalistsSection(Section):
    """What is trained on after a search: `[[finalists.rungs]]`, each with the best of what the one before left."""

    differ: float = Field(0.02, ge=0, lt=1)
    """By how much the widths of any two must differ, as a share of the dense network's, on average."""
    rungs: tuple[RungSection, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> FinalistsSection:
        counts = [rung.count for rung in self.rungs]
        if any(later > earlier for earlier, later in itertools.pairwise(counts)):
            raise ValueError(f"rungs: the counts {counts} must not rise")
        return self


class LimitsSection(Section):
    """What a network must keep to. A plan beyond a limit on MFLOPs or latency is skipped before any training."""

    mflops_at_most: MFlops | None = None
    mflops_at_least: float | None = Field(None, ge=0, le=1e6)
    latency_ms_at_most: float | None = Field(None, gt=0, le=1e6)
    accuracy_at_least: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> LimitsSection:
        least, most = self.mflops_at_least, self.mflops_at_most
        if least is not None and most is not None and least > most:
            raise ValueError(f"mflops_at_least = {least:g} is above mflops_at_most = {most:g}: nothing keeps to both")
        return self


class LatencySection(Section):
    """How a network's latency is measured: on the CPU, after the cut, before any training."""

    backend: Literal["torch", "onnxruntime"] = "torch"
    threads: int = Field(1, ge=1, le=1024)
    batch: int = Field(1, ge=1, le=4096)
    runs: int = Field(30, ge=1, le=100_000)
    """Of which the median counts."""


class SamplerSection(Section):
    """How parameters are chosen."""

    name: Literal["tpe", "gp", "random", "grid", "nsga2"] = "tpe"
    startup_trials: int = Field(10, ge=1, le=MOST_TRIALS)
    """Random trials before tpe and gp begin to learn; for nsga2 the size of a generation."""
    lag: int = Field(4, ge=0, le=MOST_TRIALS)
    """A trial learns from the results up to `lag` trials before it, so that a rerun draws the same however many workers
    there are; more workers than this wait for each other. 0: learn from whatever is finished, which is chance."""


class StoppingSection(Section):
    """Ending hopeless trials between epochs."""

    name: Literal["none", "asha", "median", "hyperband"] = "none"
    warmup_epochs: Epochs = Field(1, ge=0)
    """No trial is stopped before it has had this many."""

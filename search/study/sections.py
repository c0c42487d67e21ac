"""The sections of a study file, each checked by itself; `search.study.spec` combines them.

The sections [train], [mask] and [iterative] are `pruner.train.TrainSettings`, `pruner.recipe.MaskSettings` and
`pruner.recipe.Iterative` as they are; other sections extend such a class with what only a study needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from pruner.data.known import NAMES, SMALL
from pruner.errors import InputError
from pruner.recipe import PruneSettings
from pruner.schema import Epochs, Images, Pixels, Rate, Share, fields_of, one_of
from pruner.train import Training, TrainSettings
from search.study.section import MOST_TRIALS, FileName, Section


class DataSection(Section):
    """The data set, and how it is used."""

    name: Annotated[str, one_of(NAMES)] = "cifar10"
    """`cifar10`, `digits`, `folder` (your own images), or, where their files are there, `cifar100`, `fashion-mnist`,
    `stl10`, `svhn`."""
    root: FileName | None = None
    """Folder with the data set; the option --data-root and, for CIFAR-10, CIFAR10_ROOT take precedence. A `folder` has
    `train/CLASS/IMAGE` and, beside `train`, `val` and `test` if there are such; or `CLASS/IMAGE`, which is divided."""
    holdout: Images = 0
    """How many training images are held out to evaluate trials on; 0: the data set's usual number, of a folder a
    tenth."""
    resolution: Pixels = 224
    """Pixels a side at which the holdout and, at the end, the test images are classified; a folder's images are stored
    at it, if they are not smaller."""
    mirrors: bool | None = None
    """Does a mirrored image keep its class? Left out: yes, but not for `digits` and `svhn`."""

    @property
    def pixels(self) -> int:
        """The side of the data set's own images; of a folder's, the most that it can be."""
        return SMALL[self.name].pixels if self.name in SMALL else self.resolution


def training(settings: TrainSettings, learning_rate: float, seed: int, data: DataSection) -> Training:
    """The training part of a recipe."""
    common = fields_of(settings, TrainSettings) | {
        "resolution": settings.resolution or data.resolution,
        "seed": seed if settings.seed is None else settings.seed,
    }
    return Training(**common, learning_rate=learning_rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseSection(TrainSettings):
    """The dense network: its initial weights, and how it is trained if it is not given."""

    init: FileName = "imagenet"
    """Initial weights: `imagenet`, `random`, or a .pth."""
    checkpoint: FileName | None = None
    """A trained dense network. The option --dense takes precedence; for CIFAR-10, PRUNE_SEARCH_BASE is the fallback."""
    learning_rate: Rate = 0.01

    def __post_init__(self) -> None:
        TrainSettings.__post_init__(self)
        if self.distill_temperature:
            raise InputError("distill_temperature: the dense network has no teacher to learn from")


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSection(PruneSettings):
    """How every trial prunes, apart from what is sampled."""

    calibration_images: Annotated[Images, Field(ge=1)] = 128
    """Training images whose gradients rank channels, for the importances `taylor` and `hessian`."""
    reconstruction_images: Annotated[Images, Field(ge=1)] = 512
    """Training images for reconstruction, and for the importance `obs`."""


class LatencySection(Section):
    """How a network's latency is measured: on the CPU, after pruning, before any training."""

    backend: Literal["torch", "onnxruntime"] = "torch"
    threads: int = Field(1, ge=1, le=1024)
    batch_size: int = Field(1, ge=1, le=4096)
    runs: int = Field(30, ge=1, le=100_000)
    """How many times latency is measured; the median counts."""


class SamplerSection(Section):
    """How parameters are sampled."""

    name: Literal["tpe", "gp", "random", "grid", "nsga2"] = "tpe"
    n_startup_trials: int = Field(10, ge=1, le=MOST_TRIALS)
    """Random trials before tpe and gp begin to learn; for nsga2, the size of a generation."""
    max_concurrent: int = Field(4, ge=0, le=MOST_TRIALS)
    """A trial learns from the results of trials at least this many before it, so that a rerun draws the same with any
    number of workers; more workers than this wait for each other. 0: a trial learns from all finished trials, so draws
    depend on timing."""


class EarlyStoppingSection(Section):
    """How hopeless trials are stopped between epochs."""

    name: Literal["none", "asha", "median", "hyperband"] = "none"
    warmup_epochs: Epochs = 1
    """No trial is stopped before it has trained this many epochs."""


class SearchSection(Section):
    """One of several searches in a file. They run in order, each starting from the best networks of the previous one.

    Besides the keys below, it accepts the file's keys that it changes: sections, merged with the file's own, and
    `trials`, `timeout_hours`, `target_score`, `epoch_eval_images`, `eval_images`.
    """

    model_config = ConfigDict(extra="allow")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """The search is the study `FILE.NAME`, in a folder of its own."""
    parents: int = Field(1, ge=1, le=MOST_TRIALS)
    """How many networks of the previous search this one starts from: the best that meet the constraints. The first
    search starts from those that `space.parent` names."""
    min_distance: float = Field(0.02, ge=0, lt=1)
    """The least average difference between the widths of any two of these, as a share of the dense network's widths."""
    needs_accuracy: Share | None = None
    """Begin only if the best network of the previous search has this accuracy on the holdout; otherwise the file ends
    with that network."""
    holdout_flatters: Share | None = None
    """How much more of the holdout networks have than of new images: 0.01 is one point. If it is given, the file that
    ends with this search hands over the network of highest score at an accuracy lower by that, of the best one of each
    search; otherwise the last one's."""
    train_only: bool = False
    """Prune nothing: train each of these networks once, or once at each learning rate of a list."""

    @property
    def changes(self) -> dict[str, Any]:
        """The file's keys that this search changes."""
        return dict(self.model_extra or {})

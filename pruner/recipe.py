"""What to do to one network, as plain values: what is pruned, what becomes zero, how it is trained. No torch in here.

What a study keeps fixed and what its trials sample are apart: `PruneSettings` and `Prune`, `MaskSettings` and `Mask`.
A study file's sections are the former, and pydantic reads them as they stand.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from pruner.errors import InputError
from pruner.network.count import GRADER_RESOLUTION
from pruner.network.structure import MODULES, STAGES
from pruner.schema import Channels, Checked, Factor, MFlops, Pixels, Ratio, Share, Steps, one_of
from pruner.train import Phase, Training, TrainSettings

IMPORTANCES = ("l1", "l2", "taylor", "hessian", "lamp", "fpgm", "bn_scale", "obs", "random")
MASK_IMPORTANCES = ("magnitude", "taylor")
ALLOCATIONS = ("uniform", "equal_error", "lagrangian")
SCALED_STAGES = (*STAGES, "output")
WEIGHT_STAGES = ("stem", *STAGES, "classifier")
"""Where the weights lie that masks can make zero."""

Importance = Annotated[str, one_of(IMPORTANCES)]
MaskImportance = Annotated[str, one_of(MASK_IMPORTANCES)]
Allocation = Annotated[str, one_of(ALLOCATIONS)]
Normalizer = Annotated[str, one_of(("none", "mean", "max", "sum"))]
Stage = Annotated[str, one_of(STAGES)]
OutputStage = Annotated[str, one_of(STAGES[:-1])]
ScaledStage = Annotated[str, one_of(SCALED_STAGES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneSettings(Checked):
    """How channels are pruned, whichever they are."""

    normalizer: Normalizer = "mean"
    """What a layer's scores are divided by before they compete across layers."""
    min_channels: Channels = 1
    """No group keeps fewer channels than this."""
    round_to: Channels = 1
    """Kept widths are rounded to a multiple of this."""
    count_resolution: Pixels = GRADER_RESOLUTION
    """Pixels a side of the images for which operations are counted; the course's grader has 224."""
    ignored_layers: tuple[str, ...] = ()
    """What is left alone: a stage, a block (`features.5`), `residual` (every block with a residual connection)
    or `classifier`."""

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        for name in self.ignored_layers:
            if name not in (*STAGES, *MODULES, "residual"):
                raise InputError(
                    f"ignored_layers: {name!r} is not a stage (stage1 ... head), a block (features.5), residual or "
                    "classifier"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune(PruneSettings):
    """Which channels are pruned, and whether what reads them is reconstructed."""

    importance: Importance = "l2"
    """How channels are ranked."""
    pruning_ratio: Mapping[Stage, Ratio] = field(default_factory=dict)
    """Stage -> fraction of its hidden channels (the head: of its channels) to prune. A stage not named is kept."""
    output_pruning_ratio: Mapping[OutputStage, Ratio] = field(default_factory=dict)
    """Stage -> fraction of its output channels to prune; the head has none."""
    global_pruning_ratio: Ratio | None = None
    """One fraction for the whole network instead: channels compete across layers."""
    target_mflops: MFlops | None = None
    """Millions of operations that the network may have instead: the widths are allocated to meet it."""
    allocation: Allocation = "lagrangian"
    """How that is done. `uniform` prunes the same fraction of every group; by the curves of `pruner.channels.obs`,
    `equal_error` prunes every group until it reaches one common error, and `lagrangian` until the next operation saved
    costs one common error."""
    error_scale: Mapping[ScaledStage, Factor] = field(default_factory=dict)
    """Stage, or `output` for all stages' output widths -> how much more error is tolerated there (1: as elsewhere)."""
    reconstruct: bool = False
    """Refit the layers that read pruned channels (`pruner.channels.reconstruct`)."""

    def __post_init__(self) -> None:
        PruneSettings.__post_init__(self)
        by_stage = bool(self.pruning_ratio or self.output_pruning_ratio)
        if self.global_pruning_ratio is not None and by_stage:
            raise InputError("global_pruning_ratio: give either one ratio for all or ratios by stage, not both")
        if self.target_mflops is not None and (by_stage or self.global_pruning_ratio is not None):
            raise InputError("target_mflops: give either a target or pruning ratios, not both")


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskSettings(Checked):
    """How masks get to their sparsity."""

    end_fraction: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.6
    """Gradual: the share of all training steps after which the final sparsity is reached."""
    pruning_steps: Steps = 10
    """Gradual: in so many steps."""
    steps: Steps = 1
    """Not gradual: in so many steps before training, on the same cubic schedule; with reconstruction, each ranks the
    weights that the last refit left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask(MaskSettings):
    """Which share of the weights becomes zero, how they are ranked, and whether at once or during training."""

    importance: MaskImportance = "magnitude"
    """How weights are ranked."""
    sparsity: Mapping[str, Share] = field(default_factory=dict)
    """Stage (one of WEIGHT_STAGES), or a weight's own name -> fraction of its weights that becomes zero."""
    uniform: Share = 0.0
    """The fraction for every layer that `sparsity` does not name."""
    global_sparsity: Share | None = None
    """One fraction for the whole network instead: all weights compete."""
    gradual: bool = False
    """Get there during training, by a cubic schedule, instead of before it."""

    def __post_init__(self) -> None:
        MaskSettings.__post_init__(self)
        for name in self.sparsity:
            if not name.endswith(".weight") and name not in WEIGHT_STAGES:
                raise InputError(f"sparsity.{name}: is neither a weight's name nor one of {', '.join(WEIGHT_STAGES)}")
        if self.global_sparsity is not None and (self.sparsity or self.uniform):
            raise InputError("global_sparsity: give either one for all weights or sparsities by stage, not both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Iterative(Checked):
    """The way to a plan in several steps, each pruning what the last one left, with a short training in between."""

    steps: Annotated[Steps, Field(le=1000)] = 1
    """How many times to prune; the operations that each leaves fall geometrically."""
    mflops: tuple[MFlops, ...] = ()
    """Instead: the millions of operations that all steps but the last leave."""
    train: Phase = field(default_factory=Phase)
    """The training after each of them."""

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        if not all(a > b for a, b in pairwise((math.inf, *self.mflops))):
            raise InputError("mflops: must fall from step to step")

    @property
    def trainings(self) -> tuple[Phase, ...]:
        """The trainings between steps, one after each step but the last."""
        return (self.train,) * (len(self.mflops) or self.steps - 1)

    @property
    def total_epochs(self) -> int:
        """Of the trainings between steps."""
        return len(self.trainings) * self.train.epochs

    def targets(self, dense: float, final: float) -> tuple[float, ...]:
        """Millions of operations after each step but the last."""
        if self.mflops:
            return tuple(target for target in self.mflops if final < target < dense)
        return tuple(dense * (final / dense) ** (number / self.steps) for number in range(1, self.steps))


def needs_teacher(train: TrainSettings, iterative: Iterative) -> bool:
    """Whether there is any training, and it learns from the dense network's logits."""
    return train.distill_temperature > 0 and iterative.total_epochs + train.total_epochs > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Checked):
    """All that is done to one network: pruning, masks, and the training after them."""

    prune: Prune = field(default_factory=Prune)
    train: Training = field(default_factory=Training)
    parent: str = "dense"
    """The network that is pruned (`search.trial.parent`)."""
    mask: Mask | None = None
    """Which weights become zero after pruning, if any."""
    iterative: Iterative = field(default_factory=Iterative)

    @property
    def step_train(self) -> Training:
        """The training after every step of pruning but the last."""
        return dataclasses.replace(self.train, phases=(self.iterative.train,), ema_decay=0.0, bn_recalibration_images=0)

    @property
    def needs_teacher(self) -> bool:
        """Does it train at all, and learn from the dense network's logits?"""
        return needs_teacher(self.train, self.iterative)

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready form; `from_json` gives an equal recipe back."""
        found: dict[str, Any] = TypeAdapter(Recipe).dump_python(self, mode="json")
        return found

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Recipe:
        """The recipe that `as_json` wrote. Raises ValueError if it is none."""
        return TypeAdapter(Recipe).validate_python(data)

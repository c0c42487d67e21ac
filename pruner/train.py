"""How a network is trained, as plain values: `TrainSettings` is what a study keeps fixed, `Training` all of it.

A study file's section [train] is the former, and pydantic reads it as it stands. No torch in here.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from pruner.errors import InputError
from pruner.schema import BatchSize, Checked, Epochs, Images, Pixels, Rate, Ratio, Weight, one_of

Optimizer = Annotated[str, one_of(("sgd", "adamw"))]
Schedule = Annotated[str, one_of(("cosine", "linear", "constant"))]
Precision = Annotated[str, one_of(("auto", "float32", "bfloat16", "float16"))]
MemoryFormat = Annotated[str, one_of(("channels_last", "channels_first"))]
Part = Annotated[int, Field(ge=0, le=100_000)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase(Checked):
    """A part of the training. What is None is as in the training that it belongs to."""

    epochs: Annotated[Epochs, Field(ge=1)] = 1
    images_per_epoch: Annotated[Images, Field(ge=2)] | None = None
    batch_size: BatchSize | None = None
    resolution: Pixels | None = None
    lr_scale: Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)] = 1.0
    """Its peak learning rate, as a multiple of the training's."""
    schedule: Schedule | None = None
    warmup: Ratio | None = None
    compile: bool | None = None
    precision: Precision | None = None
    memory_format: MemoryFormat | None = None
    data_parallel: Part | None = None
    frozen_statistics: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings(Checked):
    """How a network is trained, but for the learning rate."""

    seed: Seed | None = None
    """Determines the order of the images and their augmentation. Left out: the study's seed; a variant may have
    another, to tell what chance does."""
    epochs: Epochs = 1
    images_per_epoch: Images = 0
    """How many training images an epoch sees, another draw each epoch; 0 means all of them."""
    batch_size: BatchSize = 64
    resolution: Pixels | None = None
    """Pixels a side that images are resized to for training. Left out: as the holdout is classified at."""
    optimizer: Optimizer = "sgd"
    schedule: Schedule = "cosine"
    """After a linear warm-up: `cosine` or `linear` down to zero, or `constant`."""
    momentum: Ratio = 0.9
    """For SGD (Nesterov)."""
    weight_decay: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 4e-5
    """Not applied to BatchNorm and biases."""
    warmup: Ratio = 0.1
    """Share of all steps in which the learning rate rises."""
    label_smoothing: Ratio = 0.0
    grad_clip_norm: Weight = 0.0
    """Largest norm of the gradient; 0 means no clipping."""
    flip: bool = True
    """Mirror images at random, where the data set's classes allow it."""
    random_shift: Annotated[int, Field(ge=0, lt=2048)] = 2
    """Shift images by up to this many of their own pixels, each way."""
    distill_temperature: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 0.0
    """Above 0: learn from the dense network's logits, softened by this (`pruner.training.distill`); they are computed
    once for all training images."""
    ce_weight: Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)] = 0.1
    """With distillation: the weight of the cross-entropy with the true labels beside it."""
    ema_decay: Ratio = 0.0
    """Above 0: end with an exponential moving average of the weights, with this decay a step."""
    bn_recalibration_images: Images = 0
    """At the end, recalibrate BatchNorm's statistics on so many training images; 0: leave them as training did. What is
    neither trained nor reconstructed is recalibrated in any case (0: on 512)."""
    data_parallel: Part = 32
    """Images in each part of a batch. On a CPU the parts train on a core each, with BatchNorm statistics of their own;
    a batch of fewer than twice as many is one part, and 0 makes one part of any batch. GPUs take whole batches."""
    frozen_statistics: bool = False
    """Normalise by BatchNorm's statistics as they are when the phase begins, recalibrated for it, instead of each
    batch's. On a CPU a step then takes half as long; it needs a far lower learning rate (`lr_scale`), or AdamW, and
    pays at the end of a training."""
    precision: Precision = "auto"
    """What activations are computed in: `float32`, `bfloat16` or `float16`; `auto` is 32 bits on a CPU, 16 on a GPU."""
    memory_format: MemoryFormat = "channels_last"
    """How images and weights lie in memory: `channels_last` or `channels_first`."""
    compile: bool = False
    """Compile the network before training (torch.compile), which takes a minute; on GPUs only."""
    phases: tuple[Phase, ...] = ()
    """`[[train.phases]]`, one after the other; then `epochs` above does not count. Empty: all epochs alike."""

    def __post_init__(self) -> None:
        Checked.__post_init__(self)
        for name in ("images_per_epoch", "bn_recalibration_images"):
            if getattr(self, name) == 1:
                raise InputError(f"{name}: BatchNorm needs 2 images or more, not 1")
        if self.ema_decay and not self.bn_recalibration_images:
            raise InputError(
                "ema_decay: averaged weights need BatchNorm's statistics recalibrated: give bn_recalibration_images, "
                "say 2000"
            )

    @property
    def total_epochs(self) -> int:
        """Over all phases."""
        return sum(phase.epochs for phase in self.phases) if self.phases else self.epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class Training(TrainSettings):
    """How a network is trained."""

    resolution: Pixels = 224
    """Pixels a side that images are resized to for training."""
    learning_rate: Rate = 0.01
    """The peak of the schedule."""
    seed: Seed = 0

    @property
    def parts(self) -> tuple[Training, ...]:
        """The phases as trainings of their own, each alike in all its epochs."""
        if not self.phases:
            return (self,)
        shared = ("images_per_epoch", "batch_size", "resolution", "schedule", "warmup", "data_parallel", "precision",
                  "memory_format", "compile", "frozen_statistics")  # fmt: skip
        return tuple(
            dataclasses.replace(
                self,
                phases=(),
                epochs=phase.epochs,
                learning_rate=self.learning_rate * phase.lr_scale,
                **{name: value for name in shared if (value := getattr(phase, name)) is not None},
            )
            for phase in self.phases
        )

"""How a network is trained, as plain values: no torch in here."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, get_args

from pruner.errors import InputError, check_name, check_number

Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "linear", "constant"]
Execution = Literal["auto", "eager", "eager-split", "eager-nchw", "eager-bf16", "compiled", "compiled-bf16"]
"""How training is executed (`pruner.training.execution`)."""
OPTIMIZERS, SCHEDULES, EXECUTIONS = get_args(Optimizer), get_args(Schedule), get_args(Execution)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A part of a network's training. What is None is as in the `Tune` that it belongs to."""

    epochs: int = 1
    images_per_epoch: int | None = None
    batch: int | None = None
    resolution: int | None = None
    rate: float = 1.0
    """Its peak learning rate, as a multiple of the `Tune`'s."""
    schedule: str | None = None
    warmup: float | None = None
    execution: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tune:
    """How a network is trained."""

    epochs: int = 1
    images_per_epoch: int = 0
    """How many training images an epoch sees, another draw each epoch; 0 means all of them."""
    batch: int = 64
    resolution: int = 224
    """Pixels a side that images are resized to for training."""
    optimizer: str = "sgd"
    learning_rate: float = 0.01
    """The peak of the schedule."""
    schedule: str = "cosine"
    """After a linear warm-up: `cosine` or `linear` down to zero, or `constant`."""
    momentum: float = 0.9
    """For SGD (Nesterov)."""
    weight_decay: float = 4e-5
    """Not applied to BatchNorm and biases."""
    warmup: float = 0.1
    """Share of all steps in which the learning rate rises."""
    label_smoothing: float = 0.0
    clip: float = 0.0
    """Largest norm of the gradient; 0 means no clipping."""
    flip: bool = True
    """Mirror images at random, where the data set's classes allow it."""
    shift: int = 2
    """Shift images by up to this many of their own pixels, each way."""
    temperature: float = 0.0
    """Above 0: learn from the dense network's logits, softened by this (`pruner.training.distill`)."""
    hard_labels: float = 0.1
    """Then: the weight of the cross-entropy with the true labels beside it."""
    average: float = 0.0
    """Above 0: end with an exponential moving average of the weights, with this decay a step."""
    reestimate: int = 0
    """At the end, find BatchNorm's statistics anew from so many training images; 0: leave them as training did."""
    execution: str = "auto"
    """One of EXECUTIONS; auto is eager, but in a study it is what was measured to be fastest."""
    phases: tuple[Phase, ...] = ()
    """One after the other; empty: all epochs alike."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_name("optimizer", self.optimizer, OPTIMIZERS)
        check_name("schedule", self.schedule, SCHEDULES)
        check_name("execution", self.execution, EXECUTIONS)
        for name in ("batch", "resolution"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: {getattr(self, name)} is not a positive whole number")
        for name in ("epochs", "images_per_epoch", "learning_rate", "weight_decay", "clip", "shift", "temperature",
                     "hard_labels", "reestimate"):  # fmt: skip
            check_number(name, getattr(self, name))
        for name in ("momentum", "warmup", "label_smoothing", "average"):
            check_number(name, getattr(self, name), 1)
        if self.average and not self.reestimate:
            raise InputError("reestimate: averaged weights need BatchNorm's statistics found anew, from some images")
        _ = self.parts  # checks every phase

    @property
    def parts(self) -> tuple[Tune, ...]:
        """The phases as trainings of their own, each alike in all its epochs."""
        if not self.phases:
            return (self,)
        return tuple(
            dataclasses.replace(
                self,
                phases=(),
                epochs=phase.epochs,
                learning_rate=self.learning_rate * phase.rate,
                **{
                    name: value
                    for name in ("images_per_epoch", "batch", "resolution", "schedule", "warmup", "execution")
                    if (value := getattr(phase, name)) is not None
                },
            )
            for phase in self.phases
        )

    @property
    def total_epochs(self) -> int:
        """Over all phases."""
        return sum(part.epochs for part in self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """The way to a plan in several cuts, each of what the last one left, with a short training in between."""

    count: int = 2
    """How many cuts; the operations that they leave fall geometrically."""
    mflops: tuple[float, ...] = ()
    """Instead: the millions of operations that all cuts but the last leave."""
    phase: Phase = field(default_factory=Phase)
    """The training after each of them."""

    def __post_init__(self) -> None:
        if self.count < 1 or not all(a > b for a, b in pairwise((math.inf, *self.mflops, 0.0))):
            raise InputError("rounds: a count of 1 or more, or MFLOPs that fall from round to round")

    def targets(self, dense: float, final: float) -> tuple[float, ...]:
        """Millions of operations after each cut but the last."""
        if self.mflops:
            return tuple(target for target in self.mflops if final < target < dense)
        return tuple(dense * (final / dense) ** (number / self.count) for number in range(1, self.count))

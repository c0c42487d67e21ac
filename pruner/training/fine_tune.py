"""Training as a generator: one report an epoch, and any epoch can be the start of another run.

Training knows neither Optuna nor the disk. The learning rate is a function of the step, and the order of the data of
seed and epoch, so that a resumed run gives the same weights as one that was never interrupted.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.data.batches import images_per_epoch, steps_per_epoch, train_batches
from pruner.data.datasets import Split
from pruner.errors import Diverged, InputError
from pruner.system.seeds import mix
from pruner.train import Training
from pruner.training.distill import Teacher
from pruner.training.step import Step
from pruner.weights.masks import MaskKeeper


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """What one epoch of training brought."""

    number: int
    """From 1."""
    loss: float
    """Mean over the epoch's training images, as they were augmented and while the weights moved."""
    accuracy: float
    """On the same."""
    images: int
    resolution: int
    """Pixels a side that they were resized to."""
    learning_rate: float
    """At its first step."""
    seconds: float
    state: dict[str, Any]
    """What `fine_tune` needs to go on from here; holds live tensors, so save or copy it before the next epoch."""


def fine_tune(
    model: MobileNetV2,
    split: Split,
    training: Training,
    *,
    mirrors: bool,
    keeper: MaskKeeper | None = None,
    teacher: Teacher | None = None,
    resolution: int | None = None,
    resume: dict[str, Any] | None = None,
    on_images: Callable[[int], None] | None = None,
) -> Iterator[Epoch]:
    """Train `model` in place, phase by phase.

    Once the last epoch's report has been taken and the generator is asked for another, the averaged weights are put in,
    if `training` averages, and BatchNorm's statistics are recalibrated at `resolution`, if `training` asks for it or
    its last phase ran at another resolution.

    Args:
        model: The network to train.
        split: The images to train on, on the device to train on.
        training: What to do.
        mirrors: Whether images may be flipped.
        keeper: Keeps masked weights zero.
        teacher: The logits to learn from, if `training` distills.
        resolution: Pixels a side of the images that the network is for; None: as in the last phase.
        resume: An earlier report's `state`, to go on after its epoch.
        on_images: Called with n after every n images trained on.

    Yields:
        A report after every epoch.

    Raises:
        Diverged: The loss is no longer a number.
    """
    if training.distill_temperature and training.total_epochs and teacher is None:
        raise InputError("distill_temperature: learning from the dense network needs its logits")
    device = split.images.device
    # The average takes over this layout. A resumed run must begin with the same one to round alike.
    model.to(device, memory_format=torch.channels_last)
    if keeper:
        keeper.to(device)
    step = Step(model, training, device, keeper)
    done = 0
    if resume is not None:
        done = resume["epoch"]
        step.load_state(resume)
    lengths = [
        steps_per_epoch(split, batch_size=part.batch_size, images=part.images_per_epoch) for part in training.parts
    ]
    all_steps = sum(length * part.epochs for length, part in zip(lengths, training.parts, strict=True))
    course = _Course(step, split, mirrors, teacher, on_images, all_steps)
    epoch, first_step = 0, 0
    for before, part, steps in zip((None, *training.parts[:-1]), training.parts, lengths, strict=True):
        if done < epoch + part.epochs:
            if done <= epoch:
                step.enter(part, before, split)
            step.begin(part)
        for number in range(part.epochs):
            if epoch >= done:
                yield course.epoch(part, epoch, number * steps, first_step)
            epoch += 1
            first_step += steps
    if training.total_epochs:
        step.finish(split, resolution or training.parts[-1].resolution)


@dataclass(frozen=True, slots=True)
class _Course:
    """What all epochs of a training share."""

    step: Step
    split: Split
    mirrors: bool
    teacher: Teacher | None
    on_images: Callable[[int], None] | None
    all_steps: int

    def epoch(self, part: Training, epoch: int, phase_step: int, first_step: int) -> Epoch:
        """One epoch (from 0), which begins at step `phase_step` of its phase and `first_step` of all."""
        device = self.split.images.device
        began = time.perf_counter()
        # Summed on the device and read once an epoch: reading makes a GPU wait.
        total_loss = torch.zeros((), device=device)
        right = torch.zeros((), dtype=torch.long, device=device)
        seen = 0
        steps = steps_per_epoch(self.split, batch_size=part.batch_size, images=part.images_per_epoch)
        batches = train_batches(
            self.split,
            batch_size=part.batch_size,
            seed=part.seed,
            epoch=epoch,
            images=part.images_per_epoch,
            flip=part.flip and self.mirrors,
            random_shift=part.random_shift,
        )

        def rate_at(number: int) -> float:
            shape = schedule(phase_step + number, steps * part.epochs, part.warmup, part.schedule)
            return part.learning_rate * shape

        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(mix(part.seed, epoch, 1))  # for dropout
            for number, batch in enumerate(batches):
                wanted = None
                if self.teacher and part.distill_temperature:
                    wanted = self.teacher.of(batch.which, batch.mirrored)
                loss, outputs = self.step(batch, wanted, rate_at(number), first_step + number, self.all_steps)
                total_loss += loss * len(batch.labels)
                right += (outputs.argmax(1) == batch.labels).sum()
                seen += len(batch.labels)
                if self.on_images:
                    self.on_images(len(batch.labels))
        mean_loss = total_loss.item() / seen
        if not math.isfinite(mean_loss):
            raise Diverged(f"the loss was {mean_loss} in epoch {epoch + 1} (learning rate {part.learning_rate:g})")
        return Epoch(
            number=epoch + 1,
            loss=mean_loss,
            accuracy=right.item() / seen,
            images=seen,
            resolution=part.resolution,
            learning_rate=rate_at(0),
            seconds=time.perf_counter() - began,
            state={"epoch": epoch + 1, **self.step.state()},
        )


def epoch_images(split: Split, training: Training) -> list[int]:
    """How many images each epoch trains on, for progress bars."""
    return [
        images_per_epoch(split, batch_size=part.batch_size, images=part.images_per_epoch)
        for part in training.parts
        for _ in range(part.epochs)
    ]


def schedule(step: int, steps: int, warmup: float, shape: str = "cosine") -> float:
    """The learning rate at a step as a share of its peak: a linear rise, then one of SCHEDULES, down to 0."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    if shape == "constant":
        return 1.0
    share = (step - rising) / max(1, steps - rising)
    return 1 - share if shape == "linear" else 0.5 * (1 + math.cos(math.pi * share))

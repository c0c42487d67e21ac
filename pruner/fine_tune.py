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
import torch.nn.functional as F
from torch import Tensor, nn

from pruner.data import Split, steps_per_epoch, train_batches
from pruner.errors import Diverged
from pruner.masks import MaskKeeper
from pruner.recipe import Tune
from pruner.seeds import mix


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
    seconds: float
    state: dict[str, Any]
    """What `fine_tune` needs to go on from here; holds live tensors, so save or copy it before the next epoch."""


def fine_tune(
    model: nn.Module,
    split: Split,
    tune: Tune,
    *,
    mirrors: bool,
    keeper: MaskKeeper | None = None,
    resume: dict[str, Any] | None = None,
    on_images: Callable[[int], None] | None = None,
) -> Iterator[Epoch]:
    """Train `model` in place, as `tune` says; yields after every epoch.

    `mirrors`: may images be flipped? `keeper`: keeps masked weights zero. `resume`: an earlier report's `state`, to go
    on after its epoch.
    `on_images(n)` is told of every n images done. Raises Diverged when the loss is no longer a number.
    """
    device = split.images.device
    # With freed memory kept (pruner.machine), channels last trains faster at every resolution.
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if keeper:
        keeper.to(device)
    step = Step(model, tune, device, keeper)
    done = 0
    if resume is not None:
        done = resume["epoch"]
        step.load_state(resume)
    steps = steps_per_epoch(split, batch=tune.batch, images=tune.images_per_epoch)
    for epoch in range(done, tune.epochs):
        began = time.perf_counter()
        model.train()
        # Summed on the device and read once an epoch: reading makes a GPU wait.
        total_loss = torch.zeros((), device=device)
        right = torch.zeros((), dtype=torch.long, device=device)
        seen = 0
        batches = train_batches(
            split,
            batch=tune.batch,
            resolution=tune.resolution,
            seed=tune.seed,
            epoch=epoch,
            images=tune.images_per_epoch,
            flip=tune.flip and mirrors,
            shift=tune.shift,
        )
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(mix(tune.seed, epoch, 1))  # for dropout
            for number, (images, labels) in enumerate(batches, start=epoch * steps):
                rate = tune.learning_rate * schedule(number, steps * tune.epochs, tune.warmup)
                loss, outputs = step(images, labels, rate)
                if keeper:
                    keeper.after_step(step.optimizer, number, steps * tune.epochs)
                total_loss += loss * len(labels)
                right += (outputs.argmax(1) == labels).sum()
                seen += len(labels)
                if on_images:
                    on_images(len(labels))
        mean_loss = total_loss.item() / seen
        if not math.isfinite(mean_loss):
            raise Diverged(f"the loss was {mean_loss} in epoch {epoch + 1} (learning rate {tune.learning_rate:g})")
        yield Epoch(
            number=epoch + 1,
            loss=mean_loss,
            accuracy=right.item() / seen,
            images=seen,
            seconds=time.perf_counter() - began,
            state={"epoch": epoch + 1, **step.state()},
        )


class Step:
    """One optimisation step, with mixed precision on a GPU, and the state that outlives an epoch."""

    def __init__(self, model: nn.Module, tune: Tune, device: torch.device, keeper: MaskKeeper | None = None) -> None:
        self._model, self._tune, self._device, self._keeper = model, tune, device, keeper
        self.optimizer = make_optimizer(model, tune)
        self._half = _half_precision(device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._half is torch.float16)

    def __call__(self, images: Tensor, labels: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """(mean loss, outputs) of a batch, after moving the weights by it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self._device.type, dtype=self._half, enabled=self._half is not None):
            outputs = self._model(images)
            loss = F.cross_entropy(outputs, labels, label_smoothing=self._tune.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self._tune.clip:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self._model.parameters(), self._tune.clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        return loss.detach(), outputs.detach()

    def state(self) -> dict[str, Any]:
        return {
            "model": self._model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "masks": self._keeper.state() if self._keeper else {},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self._model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._keeper:
            self._keeper.load_state(state["masks"])


def epoch_images(split: Split, tune: Tune) -> int:
    """How many images an epoch trains on, for progress bars."""
    return steps_per_epoch(split, batch=tune.batch, images=tune.images_per_epoch) * tune.batch


def schedule(step: int, steps: int, warmup: float) -> float:
    """The learning rate at a step as a share of its peak: a linear rise, then half a cosine down to 0."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def make_optimizer(model: nn.Module, tune: Tune) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; weight decay on the weights of convolutions and linear layers only."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    free = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": tune.weight_decay}, {"params": free, "weight_decay": 0.0}]
    if tune.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=tune.learning_rate, fused=True)
    nesterov = tune.momentum > 0
    return torch.optim.SGD(groups, lr=tune.learning_rate, momentum=tune.momentum, nesterov=nesterov, fused=True)


def _half_precision(device: torch.device) -> torch.dtype | None:
    """The type for mixed precision: bf16 on a GPU that has it, else fp16; None on the CPU, where it is slower."""
    if device.type != "cuda":
        return None
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16

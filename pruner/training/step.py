"""One optimisation step, and the state of a training that outlives an epoch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.data.batches import Batch
from pruner.data.datasets import Split
from pruner.train import Training
from pruner.training.average import Average, recalibrate_batchnorm
from pruner.training.distill import distillation_loss
from pruner.training.frozen import rescale, settle
from pruner.training.parts import Gradients, half_type
from pruner.weights.masks import MaskKeeper, apply_masks

_MOVED_IMAGES = 2048
"""To recalibrate BatchNorm on at a resolution that the network was not trained at. Its statistics differ between
resolutions: without this a network trained at 128 px has forgotten 224 px."""


class Step:
    """One optimisation step, with mixed precision on a GPU, and the state that outlives an epoch."""

    def __init__(
        self, model: MobileNetV2, training: Training, device: torch.device, keeper: MaskKeeper | None = None
    ) -> None:
        self.model, self._training, self._device, self._keeper = model, training, device, keeper
        self.optimizer = make_optimizer(model, training)
        self._gradients: Gradients | None = None
        float16 = any(half_type(device, part.precision) is torch.float16 for part in training.parts)
        self._scaler = torch.amp.GradScaler(device.type, enabled=float16)
        self._average = Average(model, training.ema_decay) if training.ema_decay else None

    def begin(self, part: Training) -> None:
        """Compute gradients as this phase says from now on; for its first epoch, `enter` it before."""
        self._gradients = Gradients(self.model, part, self._loss)
        align_state(self.optimizer)

    def enter(self, part: Training, before: Training | None, split: Split) -> None:
        """Prepare the network for a phase that is about to begin with its first epoch, after the phase `before`."""
        if part.frozen_statistics:
            count = part.bn_recalibration_images or _MOVED_IMAGES
            recalibrate_batchnorm(self.model, split, count=count, resolution=part.resolution, seed=part.seed)
            settle(self.model)
        elif before and before.frozen_statistics:
            rescale(self.model)
        else:
            return
        self.optimizer.state.clear()  # what it remembers is of the weights as they were
        if self._average:
            self._average = Average(self.model, self._training.ema_decay)

    def __call__(
        self, batch: Batch, wanted: Tensor | None, rate: float, number: int, count: int
    ) -> tuple[Tensor, Tensor]:
        """(mean loss, logits) of a batch, after moving the weights by it.

        `wanted`: the teacher's logits, if there is a teacher; this is step `number` (from 0) of `count`.
        """
        assert self._gradients is not None  # a phase has begun
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, logits = self._gradients(batch, wanted, self._scaler.get_scale())
        if self._training.grad_clip_norm:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self._training.grad_clip_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self._keeper:
            self._keeper.after_step(self.optimizer, number, count)
        if self._average:
            self._average.follow()
        return loss, logits

    def _loss(self, logits: Tensor, labels: Tensor, wanted: Tensor | None) -> Tensor:
        """The sum over the images."""
        hard = F.cross_entropy(logits, labels, label_smoothing=self._training.label_smoothing, reduction="sum")
        if wanted is None:
            return hard
        soft = len(labels) * distillation_loss(logits, wanted, self._training.distill_temperature)
        return soft + self._training.ce_weight * hard

    def finish(self, split: Split, resolution: int) -> None:
        """Turn the network into the result of the training, for images of that many pixels a side."""
        # A run that is resumed here has this layout, so rounding must not depend on the last phase's.
        self.model.to(memory_format=torch.channels_last)
        if self._average:
            self._average.put_in()
            if self._keeper:  # the average still holds weights that became zero during training
                apply_masks(self.model, self._keeper.masks)
        last = self._training.parts[-1]
        moved = resolution != last.resolution
        if last.frozen_statistics:
            rescale(self.model)  # whoever trains it on will do so by batch statistics
            if not moved:
                return  # the weights were trained for the statistics that the network has
        if count := self._training.bn_recalibration_images or moved * _MOVED_IMAGES:
            recalibrate_batchnorm(self.model, split, count=count, resolution=resolution, seed=self._training.seed)

    def state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "masks": self._keeper.state() if self._keeper else {},
            "average": self._average.state() if self._average else {},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._keeper:
            self._keeper.load_state(state["masks"])
        if self._average:
            self._average.load_state(state["average"])


def align_state(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimizer's state of each weight the memory layout of the weight.

    Fused optimizers walk through both in memory order. Where the layouts differ, they silently apply one weight's
    momentum to another (torch 2.14).
    """
    for weight, remembered in optimizer.state.items():
        for name, value in remembered.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                remembered[name] = torch.empty_like(weight).copy_(value)


def make_optimizer(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW; weight decay on the weights of convolutions and linear layers only."""
    decayed = [p for p in model.parameters() if p.dim() > 1]
    free = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": training.weight_decay}, {"params": free, "weight_decay": 0.0}]
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=training.learning_rate, fused=True)
    nesterov = training.momentum > 0
    return torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.momentum, nesterov=nesterov, fused=True)

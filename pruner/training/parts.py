"""The gradients of a batch, computed in parts: a part of the images goes forward and backward on a core of its own.

Parts meet once a step, when their gradients are summed in order, so the weights are the same on any number of cores.
The size of a part belongs to the recipe, not to the machine: BatchNorm normalises by the statistics of a part instead
of the batch ("ghost" batch normalisation, Hoffer, Hubara & Soudry 2017). Only as many parts as there are cores hold
activations at a time. On a GPU the batch is computed as a whole.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.data.batches import Batch, prepared
from pruner.errors import InputError
from pruner.system.cores import on_cores
from pruner.system.machine import has_fast_half
from pruner.train import Training
from pruner.training.frozen import fold, freeze
from pruner.training.layers import batch_norm, relu6, strided_depthwise
from pruner.training.replicas import replica, statistics

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""The sum of the losses of logits (images, classes), given the labels and, if there is a teacher, its logits."""


class Gradients:
    """The gradients of a network's weights, by one phase of a training."""

    def __init__(self, model: MobileNetV2, phase: Training, loss: Loss) -> None:
        """Lay out `model` in memory as the phase says.

        Raises:
            InputError: The network cannot be compiled here.
        """
        self._model, self._phase, self._loss = model, phase, loss
        self._layout = torch.channels_last if phase.memory_format == "channels_last" else torch.contiguous_format
        model.to(memory_format=self._layout)
        self._weights = list(model.parameters())
        self._device = self._weights[0].device
        self._half = half_type(self._device, phase.precision)
        self._forward: Callable[[Tensor], Tensor] = model
        if phase.compile and self._device.type == "cuda":
            self._forward = _compiled(model)
        self._replicas: list[MobileNetV2] = []
        self._pieces = 1

    def __call__(self, batch: Batch, wanted: Tensor | None, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """Leave in every weight's `.grad` the gradient of the mean loss, times `scale`.

        Returns:
            The mean loss, and the logits (images, classes).
        """
        self._model.train()
        if self._device.type != "cpu":
            return self._whole(batch, wanted, scale)
        size, count = self._phase.data_parallel, len(batch.labels)
        parts = max(1, count // size) if size else 1
        images, labels = batch.images.chunk(parts), batch.labels.chunk(parts)
        logits_wanted = wanted.chunk(parts) if wanted is not None else [None] * len(labels)
        kept = _dropout_masks(self._model, count).chunk(parts)
        replicas = self._begin(len(labels))
        compute = partial(self._part, factor=scale / count)
        total: list[Tensor] | None = None
        losses, outputs = [], []
        for loss, logits, gradients in on_cores(compute, replicas, images, labels, logits_wanted, kept):
            losses.append(loss)
            outputs.append(logits)
            if total is None:
                total = [
                    torch.empty_like(weight).copy_(one) for weight, one in zip(self._weights, gradients, strict=True)
                ]
            else:
                torch._foreach_add_(total, gradients)
        assert total is not None
        for weight, gradient in zip(self._weights, total, strict=True):
            weight.grad = gradient
        if not self._phase.frozen_statistics:
            self._finish(replicas)
        return torch.stack(losses).sum() / count, torch.cat(outputs)

    def _whole(self, batch: Batch, wanted: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
        """A batch at once; once the memory does not hold one, in as many pieces as it asks for."""
        if self._phase.frozen_statistics:
            freeze(self._model)
        before = self._pieces
        while True:
            try:
                found = self._in_pieces(batch, wanted, scale)
                break
            except torch.OutOfMemoryError:
                if 2 * self._pieces > len(batch.labels) // 2:  # BatchNorm needs 2 images
                    raise
                self._pieces *= 2
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
        if self._pieces > before:
            print(
                f"{self._device} is out of memory with batches of {len(batch.labels)} at {self._phase.resolution} px: "
                f"training goes on with each in {self._pieces} pieces, which have BatchNorm statistics of their own.",
                file=sys.stderr,
            )
        return found

    def _in_pieces(self, batch: Batch, wanted: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
        for weight in self._weights:
            weight.grad = None
        losses, outputs = [], []
        pieces = (batch.images, batch.labels) if wanted is None else (batch.images, batch.labels, wanted)
        for images, labels, *theirs in zip(*(values.chunk(self._pieces) for values in pieces), strict=True):
            inputs = prepared(images, self._phase.resolution).contiguous(memory_format=self._layout)
            with torch.autocast(self._device.type, self._half, enabled=self._half is not torch.float32):
                logits = self._forward(inputs).float()
            loss = self._loss(logits, labels, theirs[0] if theirs else None) / len(batch.labels)
            (loss * scale).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            outputs.append(logits.detach())
        return torch.stack(losses).sum(), torch.cat(outputs)

    def _part(
        self, replica: MobileNetV2, images: Tensor, labels: Tensor, wanted: Tensor | None, kept: Tensor, factor: float
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """(sum of losses, logits, gradients of the weights) of one part; runs on one core."""
        inputs = prepared(images, self._phase.resolution).contiguous(memory_format=self._layout)
        with torch.enable_grad():
            with torch.autocast("cpu", self._half, enabled=self._half is not torch.float32):
                pooled = F.adaptive_avg_pool2d(replica.features(inputs), 1).flatten(1).float()
            logits = replica.classifier[1](pooled * kept)
            loss = self._loss(logits, labels, wanted)
            gradients = torch.autograd.grad(loss * factor, self._weights)
        return loss.detach(), logits.detach(), list(gradients)

    def _begin(self, count: int) -> list[MobileNetV2]:
        """Replicas for so many parts: they share the weights, and begin with the network's running statistics."""
        while len(self._replicas) < count:
            self._replicas.append(_for_training(replica(self._model), self._half, self._phase.frozen_statistics))
        own = statistics(self._model)
        for each in self._replicas[:count]:
            torch._foreach_copy_(statistics(each), own)
        return self._replicas[:count]

    def _finish(self, replicas: list[MobileNetV2]) -> None:
        """The network's running statistics become the mean of those of the parts."""
        own = statistics(self._model)
        torch._foreach_zero_(own)
        for each in replicas:
            torch._foreach_add_(own, statistics(each), alpha=1 / len(replicas))
        torch._foreach_add_([buffer for buffer in self._model.buffers() if buffer.dim() == 0], 1)  # batches seen


def half_type(device: torch.device, precision: str) -> torch.dtype:
    """The type that activations are computed in: with `auto` 32 bits on a CPU, 16 on a GPU."""
    if precision == "auto":
        if device.type == "cpu":
            return torch.float32
        return torch.bfloat16 if has_fast_half(device) else torch.float16
    kind: torch.dtype = getattr(torch, precision)
    return kind


def _dropout_masks(model: MobileNetV2, count: int) -> Tensor:
    """(count, channels): what dropout multiplies the pooled features of each image by; drawn for the whole batch."""
    dropout, last = model.classifier[0], model.classifier[1]
    assert isinstance(dropout, nn.Dropout)
    assert isinstance(last, nn.Linear)
    stay = 1 - dropout.p
    return torch.empty(count, last.in_features).bernoulli_(stay).div_(max(stay, 1e-9))


def _for_training(copied: MobileNetV2, half: torch.dtype, frozen: bool) -> MobileNetV2:
    for layer in copied.modules():
        if isinstance(layer, nn.ReLU6):
            layer.forward = relu6  # type: ignore[method-assign, assignment]
        elif isinstance(layer, nn.BatchNorm2d):
            layer.forward = partial(batch_norm, layer)  # type: ignore[method-assign]
        elif half is torch.bfloat16 and isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.stride == (2, 2):
            layer.forward = partial(strided_depthwise, layer.weight, None)  # type: ignore[method-assign]
    if frozen:
        fold(copied)
    return copied


def _compiled(model: nn.Module) -> Callable[[Tensor], Tensor]:
    torch.compiler.reset()  # or networks compiled before would use up dynamo's limit, and this one stay eager
    try:
        torch.compile(torch.square)(torch.ones(16, device=next(model.parameters()).device))
    except Exception as error:  # of the compiler, which has a dozen kinds
        raise InputError(f"compile: does not work here ({str(error).strip().splitlines()[0]})") from error
    return torch.compile(model, dynamic=False, mode="max-autotune-no-cudagraphs")

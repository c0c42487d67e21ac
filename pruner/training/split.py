"""A batch in parts, each trained on a core of its own.

Torch's threads share every operation, and meet at its end: with a pruned network's small ones that costs up to what it
saves. Parts meet twice a step, before the classifier and after the gradients. What changes beside the speed: BatchNorm
sees a part's statistics instead of the batch's ("ghost" batch normalisation, Hoffer, Hubara & Soudry 2017).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2

_SMALLEST_PART = 32
"""Images: of fewer, BatchNorm's statistics are too coarse to train with."""


def part_count(batch_size: int) -> int:
    """How many parts a batch of so many images is split into: as many as torch has threads; 1 if it is too small."""
    return max(1, min(torch.get_num_threads(), batch_size // _SMALLEST_PART))


def split_runner(model: MobileNetV2, parts: int) -> Callable[[Tensor], Tensor]:
    """From images (batch, 3, pixels, pixels) to logits, forward and backward in `parts` threads of one core each.

    Weights are `model`'s own at every moment; its running statistics become the mean of those of the parts.
    """
    split = _Split(model.features, parts)
    weights = list(model.features.parameters())

    def run(images: Tensor) -> Tensor:
        pooled: Tensor = _Pooled.apply(split, images, *weights)
        logits: Tensor = model.classifier(pooled)
        return logits

    return run


class _Split:
    """A network's replicas, one for each part, and their threads.

    The replicas share the network's weights and have running statistics of their own.
    """

    def __init__(self, network: nn.Module, parts: int) -> None:
        weights = {id(weight): weight for weight in network.parameters()}
        self._network = network
        self._replicas = [copy.deepcopy(network, dict(weights)) for _ in range(parts)]
        for layer in (
            layer for replica in self._replicas for layer in replica.modules() if isinstance(layer, nn.ReLU6)
        ):
            layer.inplace = False  # 4 % faster: in place it keeps a copy of what it overwrites, for its gradient
        self._statistics = [_statistics(replica) for replica in self._replicas]
        count, all_begun = torch.get_num_threads(), Barrier(parts)
        self._threads = ThreadPoolExecutor(parts, initializer=_on_one_core)
        list(self._threads.map(lambda _: all_begun.wait(), range(parts)))
        torch.set_num_threads(count)  # each thread has set it for all that begin later

    def forward(self, images: Tensor) -> list[Tensor]:
        """Of each part (images of the part, channels), with a graph of its own."""
        statistics = _statistics(self._network)
        for replica, own in zip(self._replicas, self._statistics, strict=True):
            replica.train(self._network.training)
            torch._foreach_copy_(own, statistics)
        found = list(self._threads.map(_pooled, self._replicas, images.chunk(len(self._replicas))))
        if self._network.training:
            torch._foreach_zero_(statistics)
            for own in self._statistics:
                torch._foreach_add_(statistics, own, alpha=1 / len(self._replicas))
            torch._foreach_add_([buffer for buffer in self._network.buffers() if buffer.dim() == 0], 1)  # batches seen
        return found

    def backward(self, pooled: Sequence[Tensor], gradient: Tensor, weights: Sequence[Tensor]) -> list[Tensor]:
        """Of each weight, its gradient over all parts."""
        parts = gradient.chunk(len(pooled))
        total, *others = self._threads.map(lambda part, of: list(torch.autograd.grad(part, weights, of)), pooled, parts)
        for gradients in others:
            torch._foreach_add_(total, gradients)
        return total


def _on_one_core() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # from here on this thread keeps its number, whatever others set


def _statistics(network: nn.Module) -> list[Tensor]:
    return [buffer for buffer in network.buffers() if buffer.is_floating_point()]


@torch.enable_grad()
def _pooled(features: nn.Module, images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(features(images), 1).flatten(1)


class _Pooled(torch.autograd.Function):
    """The pooled features of a batch, computed by a `_Split`."""

    @staticmethod
    def forward(ctx, split, images, *weights):  # type: ignore[no-untyped-def]
        pooled = split.forward(images)
        ctx.split, ctx.pooled, ctx.weights = split, pooled, weights
        return torch.cat([part.detach() for part in pooled])

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        gradients = ctx.split.backward(ctx.pooled, gradient, ctx.weights)
        del ctx.pooled
        return None, None, *gradients

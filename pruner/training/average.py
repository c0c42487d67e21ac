"""What is kept of a training: an average of its weights, and BatchNorm's statistics recalibrated for them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pruner.data.batches import map_batches
from pruner.data.datasets import Split
from pruner.system.seeds import mix
from pruner.training.replicas import replica, statistics

_BATCH = 64


class Average:
    """An exponential moving average of a network's weights (Polyak & Juditsky 1992, with a decay)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """`decay`: the share of what is remembered that is kept each step; in the first steps it is smaller."""
        self._weights: list[Tensor] = list(model.parameters())
        self._decay, self._steps = decay, 0
        self._kept = [weight.detach().clone() for weight in self._weights]

    @torch.no_grad()
    def follow(self) -> None:
        """Take the weights of one step more into the average."""
        self._steps += 1
        decay = min(self._decay, self._steps / (self._steps + 9))
        torch._foreach_lerp_(self._kept, self._weights, 1 - decay)

    @torch.no_grad()
    def put_in(self) -> None:
        """Give the network the averaged weights."""
        torch._foreach_copy_(self._weights, self._kept)

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs."""
        return {"steps": torch.tensor(self._steps), **{str(place): kept for place, kept in enumerate(self._kept)}}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`."""
        self._steps = int(state["steps"])
        for place, kept in enumerate(self._kept):
            kept.copy_(state[str(place)])


@torch.no_grad()
def recalibrate_batchnorm(model: nn.Module, split: Split, *, count: int, resolution: int, seed: int = 0) -> None:
    """Set BatchNorm's running statistics to the means over about `count` images drawn by the seed, in place.

    `model` is on the images' device.
    """
    if count > _BATCH:
        count -= count % _BATCH  # a handful of images would weigh as much as a full batch

    def of_batch(images: Tensor, _labels: Tensor, _number: int) -> list[Tensor]:
        copied = replica(model)
        for layer in copied.modules():
            if isinstance(layer, nn.Dropout):
                layer.eval()
            elif isinstance(layer, nn.BatchNorm2d):
                layer.momentum = 1.0  # the running statistics become the batch's
        copied(images)
        return statistics(copied)

    own = statistics(model)
    totals = [torch.zeros_like(statistic) for statistic in own]
    batches = 0
    drawn = split.drawn(count, mix(seed, 0xB47))
    for found in map_batches(of_batch, drawn, batch_size=_BATCH, resolution=resolution):
        torch._foreach_add_(totals, found)
        batches += 1
    torch._foreach_div_(totals, batches)
    torch._foreach_copy_(own, totals)

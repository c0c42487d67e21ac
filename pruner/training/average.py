"""What is kept of a training: an average of its weights, and BatchNorm's statistics found anew for them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pruner.data.batches import eval_batches
from pruner.data.datasets import Split
from pruner.system.seeds import mix

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

    `model` is on the images' device; it is left in the mode it was in.
    """
    was_training = model.training
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    dropouts = [layer for layer in model.modules() if isinstance(layer, nn.Dropout)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over batches
    model.train()
    for layer in dropouts:
        layer.eval()
    if count > _BATCH:
        count -= count % _BATCH  # a handful of images would weigh as much as a full batch
    drawn = split.drawn(count, mix(seed, 0xB47))
    for images, _ in eval_batches(drawn, batch_size=_BATCH, resolution=resolution):
        model(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)

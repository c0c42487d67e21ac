"""What MobileNetV2's pointwise layers read: sampled feature vectors, their means and covariances.

Every channel that can be pruned is read by 1x1 convolutions (or the classifier) only, which are linear in it. So the
damage of pruning, and its reconstruction, are questions of linear algebra on these statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruner.data.batches import eval_batches
from pruner.data.datasets import Split
from pruner.network.structure import GROUPS
from pruner.system.seeds import mix

BATCH = 32
"""Images that are looked at together; the places that are sampled depend on it."""
POSITIONS = 24
"""Feature vectors taken from each image and layer, at random places of the map."""
_RIDGE, _LEAST_RIDGE = 0.3, 1e-4


@dataclass(frozen=True, slots=True)
class Moments:
    """Second moments of the vectors that a layer reads."""

    count: int
    covariance: Tensor
    """(channels, channels), float64, centred."""


def moments(
    model: nn.Module, images: Split, *, resolution: int, seed: int = 0, on_images: Callable[[int], None] | None = None
) -> dict[str, Moments]:
    """Layer name -> moments of what it reads, for every layer that reads a group, over sampled places of the images.

    `model` is in eval mode, on the images' device. `on_images(n)` is told of every n images done.
    """
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}
    batch = 0

    def record(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            vectors = sample(inputs[0], seed, batch).double()
            count, total, products = sums.get(name, (0, 0.0, 0.0))
            sums[name] = (count + len(vectors), total + vectors.sum(0), products + vectors.T @ vectors)

        return hook

    layers = [reader.layer for group in GROUPS for reader in group.readers]
    hooks = [model.get_submodule(name).register_forward_pre_hook(record(name)) for name in layers]
    try:
        with torch.inference_mode():
            for inputs, labels in eval_batches(images, batch_size=BATCH, resolution=resolution):
                model(inputs)
                batch += 1
                if on_images:
                    on_images(len(labels))
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for name, (count, total, products) in sums.items():
        mean = total / count
        found[name] = Moments(count, products / count - torch.outer(mean, mean))
    return found


def sample(features: Tensor, seed: int, batch: int) -> Tensor:
    """Vectors (n * places, channels) from maps (n, channels, side, side); vectors that are given as such, all of them.

    The places depend on seed, batch number and the maps' size alone: two networks are looked at in the same places.
    """
    if features.dim() == 2:
        return features
    count, channels, height, width = features.shape
    generator = torch.Generator().manual_seed(mix(seed, batch, height))
    places = torch.rand(count, height * width, generator=generator).topk(min(POSITIONS, height * width)).indices
    rows = features.permute(0, 2, 3, 1).reshape(count, height * width, channels)
    return rows[torch.arange(count)[:, None], places.to(features.device)].reshape(-1, channels)


def ridge(channels: int, vectors: int) -> float:
    """What to add to a covariance's diagonal, as a share of its mean: more, the fewer vectors it is known from."""
    return max(_LEAST_RIDGE, _RIDGE * channels / vectors)


def scale(norm: nn.Module) -> Tensor:
    """What a BatchNorm multiplies each channel by in eval mode: (channels,), float64."""
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_var is not None
    return norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)

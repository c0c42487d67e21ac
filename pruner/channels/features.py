"""What MobileNetV2's pointwise layers read: sampled feature vectors, their means and covariances.

Every channel that can be pruned is read by 1x1 convolutions (or the classifier) only, which are linear in it. So the
damage of pruning, and its reconstruction, are questions of linear algebra on these statistics.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pruner.data.batches import map_batches
from pruner.data.datasets import Split
from pruner.network.structure import GROUPS
from pruner.system.seeds import mix

BATCH = 32
"""Images in a batch; the places that are sampled depend on it."""
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
    layers = [reader.layer for group in GROUPS for reader in group.readers]
    sums: dict[str, tuple[int, Tensor, Tensor]] = {}
    with torch.inference_mode(), recording(model, layers, seed, outputs=False) as forward:

        def of_batch(inputs: Tensor, _labels: Tensor, number: int) -> dict[str, tuple[int, Tensor, Tensor]]:
            vectors = {name: read.double() for name, read in forward(inputs, number).items()}
            return {name: (len(read), read.sum(0), read.T @ read) for name, read in vectors.items()}

        for found in map_batches(of_batch, images, batch_size=BATCH, resolution=resolution, on_images=on_images):
            for name, parts in found.items():
                count, total, products = sums.get(name, (0, 0.0, 0.0))
                sums[name] = (count + parts[0], total + parts[1], products + parts[2])
    return {name: _moments(*parts) for name, parts in sums.items()}


def _moments(count: int, total: Tensor, products: Tensor) -> Moments:
    mean = total / count
    return Moments(count, products / count - torch.outer(mean, mean))


@contextmanager
def recording(
    model: nn.Module, layers: Sequence[str], seed: int, *, outputs: bool
) -> Iterator[Callable[[Tensor, int], dict[str, Tensor]]]:
    """In the block, a function from (inputs, batch number) to what these layers read, sampled (`sample`), by name.

    With `outputs`, to what they give. It can be called in several threads at once.
    """
    local = threading.local()

    def hook(name: str) -> Callable[..., None]:
        def keep(_layer: nn.Module, inputs: tuple[Tensor, ...], given: Tensor | None = None) -> None:
            # Sampled at once: an activation behind the layer may write over the maps.
            local.found[name] = sample(inputs[0] if given is None else given, seed, local.number)

        return keep

    def forward(inputs: Tensor, number: int) -> dict[str, Tensor]:
        local.found, local.number = {}, number
        model(inputs)
        found: dict[str, Tensor] = local.found
        return found

    modules = [(name, model.get_submodule(name)) for name in layers]
    hooks = [
        module.register_forward_hook(hook(name)) if outputs else module.register_forward_pre_hook(hook(name))
        for name, module in modules
    ]
    try:
        yield forward
    finally:
        for each in hooks:
            each.remove()


def sample(features: Tensor, seed: int, batch: int) -> Tensor:
    """Vectors (n * places, channels) from maps (n, channels, side, side); vectors that are given as such, all of them.

    The places depend on seed, batch number and the maps' size alone: two networks are sampled in the same places.
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

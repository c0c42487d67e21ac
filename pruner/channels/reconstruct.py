"""Reconstruction after pruning: the layers that read pruned channels are refitted, in closed form, by least squares.

He, Zhang & Sun 2017 (channel pruning by reconstruction), layer by layer in the order of execution: each fits the old
network's outputs from the features that the refitted layers before it give, so errors do not accumulate. Means go into
BatchNorm, and its statistics are those of the new features, so that training goes on from what evaluation saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual, MobileNetV2

from pruner.channels.features import BATCH, recording, ridge, sample, scale
from pruner.channels.plan import ChannelPlan
from pruner.data.batches import map_batches
from pruner.data.datasets import Split
from pruner.network.structure import BLOCKS, CLASSIFIER, HEAD, Block
from pruner.system.cores import on_cores

_CHUNK = 2048
"""Rows of vectors whose products one core sums."""
_SMALLEST_SCALE = 0.01
"""Of a layer's median: below this a BatchNorm's factor is not kept, but its channel rescaled."""


Targets = dict[str, Tensor]
"""Name of a module -> what it gives at sampled places, (vectors, channels)."""


@torch.inference_mode()
def record_targets(
    model: MobileNetV2, images: Split, *, resolution: int = 224, seed: int = 0,
    on_images: Callable[[int], None] | None = None,
) -> Targets:  # fmt: skip
    """Record the activations of a network to which `reconstruct` fits the pruned one; serves any plan of this network.

    `model` is in eval mode, on the images' device. `on_images(n)` is told of every n images done.
    """
    pairs = [module for block in BLOCKS for module in (block.expansion, block.depthwise) if module]
    names = [*(f"{pair}.1" for pair in (*pairs, HEAD)), *(block.name for block in BLOCKS), CLASSIFIER]
    targets: Targets = {}
    done = 0
    with recording(model, names, seed, outputs=True) as forward:
        for found in map_batches(
            lambda inputs, _labels, number: forward(inputs, number),
            images,
            batch_size=BATCH,
            resolution=resolution,
            on_images=on_images,
        ):
            count = len(found[CLASSIFIER])  # a vector an image
            for name, vectors in found.items():
                each = len(vectors) // count
                if name not in targets:  # all of it at once: joined at the end, half as much again would be held
                    targets[name] = vectors.new_empty(each * len(images), vectors.shape[1])
                targets[name][each * done : each * (done + count)] = vectors
            done += count
    return targets


@torch.inference_mode()
def reconstruct(
    pruned: MobileNetV2,
    targets: Targets,
    plan: ChannelPlan,
    images: Split,
    *,
    masks: Mapping[str, Tensor] | None = None,
    resolution: int = 224,
    seed: int = 0,
    on_images: Callable[[int], None] | None = None,
) -> None:
    """Refit `pruned` in place by least squares so that its layers reproduce `targets`.

    `images` and `seed` must be those that `targets` were recorded with.

    It is in eval mode, on the images' device. `masks`: name of a weight of `pruned` -> where it may be other than zero
    (`pruner.weights.masks`); what is zero stays so. `on_images(n)` is told of every n images done.
    """
    walk = _Walk(pruned, targets, plan, images, masks or {}, resolution, seed)
    for block in BLOCKS:
        walk.block(block)
        if on_images:
            on_images(len(images) * block.number // len(BLOCKS) - len(images) * (block.number - 1) // len(BLOCKS))
    walk.head()


class _Walk:
    """The pruned network's activations at a block's door, batch by batch; it goes forward block by block.

    The maps of all images are held once: what goes into a layer is let go batch by batch (`_spent`), and the expanded
    maps, the largest, exist only for the batches that are under way.
    """

    def __init__(
        self,
        pruned: MobileNetV2,
        targets: Targets,
        plan: ChannelPlan,
        images: Split,
        masks: Mapping[str, Tensor],
        resolution: int,
        seed: int,
    ) -> None:
        self._model, self._targets, self._seed = pruned, targets, seed
        names = {layer: name for name, layer in pruned.named_modules()}
        self._masks = {layer: masks.get(f"{name}.weight") for layer, name in names.items()}
        self._keep = {name: torch.tensor(kept, device=images.images.device) for name, kept in plan.keep.items()}
        stem = self._model.features[0]
        self._doors = list(
            map_batches(lambda inputs, *_: stem(inputs), images, batch_size=BATCH, resolution=resolution)
        )

    def block(self, of: Block) -> None:
        """Fit the block's expansion, depthwise convolution and projection, and pass it."""
        block = self._model.features[of.number]
        assert isinstance(block, InvertedResidual)
        hidden, output = self._keep[of.hidden], self._keep[of.output]
        layers = list(block.conv)
        if of.expansion:
            conv, norm, _ = layers[0]
            self._fit_pointwise(conv, norm, self._samples(self._doors), self._targets[f"{of.expansion}.1"][:, hidden])
        conv, norm, activation = layers[-3]
        doors = self._doors if of.residual else _spent(self._doors)
        inside = list(on_cores(nn.Sequential(*layers[:-3], conv), doors))
        target = self._targets[f"{of.depthwise}.1"][:, hidden]
        self._fit_norm(norm, self._samples(inside), target)
        inside = list(on_cores(nn.Sequential(norm, activation), _spent(inside)))
        target = self._targets[of.name][:, output]
        if of.residual:
            target = target - self._samples(self._doors)
        self._fit_pointwise(layers[-2], layers[-1], self._samples(inside), target)
        inside = list(on_cores(nn.Sequential(*layers[-2:]), _spent(inside)))
        if of.residual:
            inside = [maps.add_(door) for maps, door in zip(inside, _spent(self._doors), strict=True)]
        self._doors = inside

    def head(self) -> None:
        """Fit the last convolution and the classifier."""
        conv, norm, activation = self._model.features[18]
        target = self._targets[f"{HEAD}.1"][:, self._keep["head"]]
        self._fit_pointwise(conv, norm, self._samples(self._doors), target)
        last_maps = nn.Sequential(conv, norm, activation, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        features = torch.cat(list(on_cores(last_maps, self._doors)))
        last = self._model.classifier[1]
        assert isinstance(last, nn.Linear)
        weight, means, wanted = fit(features, self._targets[CLASSIFIER], last.weight.double(), self._masks[last])
        last.weight.copy_(weight)
        last.bias.copy_(wanted - weight @ means)

    def _samples(self, maps: list[Tensor]) -> Tensor:
        numbers = range(len(maps))
        return torch.cat(list(on_cores(lambda batch, number: sample(batch, self._seed, number), maps, numbers)))

    def _fit_pointwise(self, conv: nn.Module, norm: nn.Module, features: Tensor, target: Tensor) -> None:
        """Have conv and norm make `target` (vectors, outputs) of `features` (vectors, channels)."""
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        factor = scale(norm)
        old = conv.weight.double().flatten(1)
        mask = self._masks[conv]
        support = None if mask is None else mask.flatten(1).to(old.device)
        weight, means, wanted = fit(features, target, old * factor[:, None], support)
        least = (_SMALLEST_SCALE * factor.abs().median()).clamp(min=1e-6)
        factor = torch.where(factor < 0, -1.0, 1.0) * factor.abs().clamp(min=least)
        weight /= factor[:, None]
        conv.weight.copy_(weight[:, :, None, None])
        variance = (features.double() @ weight.T).var(0, correction=0)
        _set_norm(norm, factor, weight @ means, variance, wanted)

    def _fit_norm(self, norm: nn.Module, features: Tensor, target: Tensor) -> None:
        """The same where channels do not mix: a factor for each channel, by BatchNorm alone."""
        assert isinstance(norm, nn.BatchNorm2d)
        factor = scale(norm)
        features, target = features.double(), target.double()
        means, wanted = features.mean(0), target.mean(0)
        centred = features - means
        variance = centred.square().mean(0)
        covariance = (centred * (target - wanted)).mean(0)
        damped = variance * (1 + ridge(1, len(features))) + 1e-12
        factor = factor + (covariance - factor * variance) / damped
        _set_norm(norm, factor, means, variance, wanted)


def fit(
    features: Tensor, target: Tensor, start: Tensor, support: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """(weight (outputs, channels), mean feature, mean target), float64: the ridge regression of target on features.

    `features`: (vectors, channels); `target`: (vectors, outputs). The penalty is on the distance from `start`: where
    the images say nothing, the weight stays as it was. `support`, bool as the weight: it is zero elsewhere.
    """
    if support is not None:
        start = torch.where(support, start, 0.0)
    features, target = features.double(), target.double()
    means, wanted = features.mean(0), target.mean(0)
    centred = features - means
    covariance = _products(centred, centred) / len(features)
    rest = _products(centred, target - wanted) / len(features) - covariance @ start.T
    damping = ridge(features.shape[1], len(features)) * covariance.diagonal().mean().clamp(min=1e-12)
    covariance.diagonal().add_(damping)
    if support is None:
        change = torch.cholesky_solve(rest, torch.linalg.cholesky(covariance))
        return start + change.T, means, wanted
    weight = start.clone()

    def solve(row: int, places: Tensor) -> Tensor:
        left = torch.linalg.cholesky(covariance[places][:, places])
        return torch.cholesky_solve(rest[places, row, None], left)[:, 0]

    rows = range(len(support))  # each output has its own equations
    for row, places, change in zip(rows, support, on_cores(solve, rows, support), strict=True):
        weight[row, places] += change
    return weight, means, wanted


def _spent(maps: list[Tensor]) -> Iterator[Tensor]:
    """Each of these in order; the list gives it up."""
    while maps:
        yield maps.pop(0)


def _products(one: Tensor, other: Tensor) -> Tensor:
    """one.T @ other, summed over chunks of their rows, a core for each chunk."""
    chunks = on_cores(lambda a, b: a.T @ b, torch.split(one, _CHUNK), torch.split(other, _CHUNK))
    total = next(chunks)
    for more in chunks:
        total += more
    return total


def _set_norm(norm: nn.BatchNorm2d, factor: Tensor, mean: Tensor, variance: Tensor, wanted: Tensor) -> None:
    """BatchNorm that gives factor * (x - mean) + wanted, with the statistics of x: in training just as well."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_(factor * torch.sqrt(variance + norm.eps))
    norm.bias.copy_(wanted)

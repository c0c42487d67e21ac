"""Sensitivity scans: accuracy against sparsity, one layer at a time.

Pruning a layer changes nothing before its block, so the activations there are computed once: a scan walks through the
network block by block and only runs the blocks that follow.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruner.channels.importance import Scores
from pruner.channels.plan import apply_plan, make_plan
from pruner.data.batches import map_batches
from pruner.data.datasets import Split
from pruner.errors import InputError
from pruner.network.structure import GROUPS, MODULES, module_of
from pruner.recipe import Prune
from pruner.system.cores import on_cores
from pruner.weights.masks import threshold_mask, weights

Point = tuple[str, float]
"""(name of what is pruned, fraction pruned)."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """One point of a curve."""

    name: str
    """The name of a weight or a stage."""
    sparsity: float
    """The share of the weight's elements that are zeroed; for a stage, the pruning ratio of its hidden channels."""
    accuracy: float


def scan_weights(
    model: nn.Module,
    split: Split,
    scores: Mapping[str, Tensor],
    sparsities: Sequence[float],
    *,
    resolution: int,
    skip: Set[Point] = frozenset(),
    on_images: Callable[[int], None] | None = None,
) -> Iterator[Sensitivity]:
    """For each weight tensor and each sparsity, zero part of the tensor and classify the images.

    `scores`: importances by weight name. `skip`: points that are already known. `on_images(n)` is called after every n
    images. The network is not modified.
    """
    walk = _Walk(model, split, resolution)
    for name, weight in weights(walk.model).items():
        todo = [s for s in sparsities if (name, s) not in skip]
        if not todo:
            continue
        walk.go_to(_place(module_of(name)))
        kept = weight.detach().clone()
        for sparsity in todo:
            with torch.no_grad():
                weight.mul_(threshold_mask(scores[name].to(weight.device), sparsity))
            accuracy = walk.accuracy(walk.model, on_images)
            with torch.no_grad():
                weight.copy_(kept)
            yield Sensitivity(name, sparsity, accuracy)


def scan_channels(
    model: nn.Module,
    split: Split,
    scores: Scores,
    ratios: Sequence[float],
    *,
    resolution: int,
    skip: Set[Point] = frozenset(),
    on_images: Callable[[int], None] | None = None,
) -> Iterator[Sensitivity]:
    """For each stage and ratio, prune the stage's hidden channels (or the head's channels) and classify the images."""
    walk = _Walk(model, split, resolution)
    first = {group.stage: _place(group.blocks[0]) for group in reversed(GROUPS)}
    for stage in reversed(first):
        for ratio in ratios:
            if (stage, ratio) in skip:
                continue
            walk.go_to(first[stage])
            pruned = apply_plan(model, make_plan(model, Prune(pruning_ratio={stage: ratio}), scores))
            yield Sensitivity(stage, ratio, walk.accuracy(pruned, on_images))


class _Walk:
    """The images' activations at the input of a block; it only moves forward."""

    def __init__(self, model: nn.Module, split: Split, resolution: int) -> None:
        self.model = copy.deepcopy(model).to(split.images.device).eval().to(memory_format=torch.channels_last)
        self._batches = list(
            map_batches(lambda images, labels, _: (images, labels), split, batch_size=50, resolution=resolution)
        )
        self._count = len(split)
        self._block = 0

    @torch.inference_mode()
    def go_to(self, block: int) -> None:
        """Run the activations through all blocks before `block`."""
        for number in range(self._block, block):
            layer = self.model.get_submodule(f"features.{number}")
            activations, labels = zip(*self._batches, strict=True)
            self._batches = list(zip(on_cores(layer, activations), labels, strict=True))
        self._block = max(self._block, block)

    @torch.inference_mode()
    def accuracy(self, model: nn.Module, on_images: Callable[[int], None] | None) -> float:
        """The accuracy of `model`, which must equal `self.model` in all blocks before the current one."""
        model = model.to(self._batches[0][1].device).eval().to(memory_format=torch.channels_last)
        features = model.get_submodule("features")
        assert isinstance(features, nn.Sequential)
        rest, classifier = features[self._block :], model.get_submodule("classifier")
        right = 0

        def count(activations: Tensor, labels: Tensor) -> int:
            outputs = classifier(F.adaptive_avg_pool2d(rest(activations), 1).flatten(1))
            return int((outputs.argmax(1) == labels).sum())

        for found, (_, labels) in zip(on_cores(count, *zip(*self._batches, strict=True)), self._batches, strict=True):
            right += found
            if on_images:
                on_images(len(labels))
        return right / self._count


def _place(module: str) -> int:
    """The module's place in the order of execution, from 0; the classifier comes after all `features`."""
    return list(MODULES).index(module)


def allocate_sparsity(
    curves: Mapping[str, Mapping[float, float]], sizes: Mapping[str, int], dense: float, nonzero: float
) -> dict[str, float]:
    """Allocate sparsities to the layers so that the share `nonzero` of all weights stays and least accuracy is lost.

    `curves`: layer -> sparsity -> accuracy; `sizes`: layer -> number of weights; `dense`: the accuracy at sparsity 0.
    Every layer is pruned until removing one more weight would cost the same accuracy in all of them. The loss is taken
    from the convex hull of the measured points, linear between them.

    Raises InputError if the scan does not reach sparsities high enough for so few weights.
    """
    segments = []
    for name, curve in curves.items():
        for low, high, slope in _hull(curve, dense):
            segments.append((slope / sizes[name], name, low, high))
    to_go = (1 - nonzero) * sum(sizes.values())
    found = dict.fromkeys(curves, 0.0)
    for _, name, low, high in sorted(segments):
        step = min((high - low) * sizes[name], to_go)
        found[name] = low + step / sizes[name]
        to_go -= step
        if to_go <= 0:
            return found
    most = 1 - sum(found[name] * size for name, size in sizes.items()) / sum(sizes.values())
    raise InputError(f"nonzero: the scan reaches down to {most:.1%} of the weights; scan higher sparsities")


def _hull(curve: Mapping[float, float], dense: float) -> list[tuple[float, float, float]]:
    """The segments of the accuracy loss's lower convex hull: (from, to, accuracy lost per unit of sparsity)."""
    points = sorted(
        {0.0: 0.0, **{sparsity: max(0.0, dense - accuracy) for sparsity, accuracy in curve.items()}}.items()
    )
    hull: list[tuple[float, float]] = []
    for point in points:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return [(a[0], b[0], _slope(a, b)) for a, b in pairwise(hull)]


def _slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])

"""Repair after a cut: the layers that read cut channels are re-fitted, in closed form, to what the network gave before.

He, Zhang & Sun 2017 (channel pruning by reconstruction), layer by layer in the order of execution: each fits the old
network's outputs from the features that the repaired layers before it give, so errors do not pile up. Means go into
BatchNorm, and its statistics are those of the new features, so that training goes on from what evaluation saw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual, MobileNetV2

from pruner.channels import ChannelPlan
from pruner.data import Split, eval_batches
from pruner.features import BATCH, READERS, ridge, sample, scale

_SMALLEST_SCALE = 0.01
"""Of a layer's median: below this a BatchNorm's factor is not kept, but its channel rescaled."""


@torch.inference_mode()
def repair(
    pruned: MobileNetV2,
    before: MobileNetV2,
    plan: ChannelPlan,
    images: Split,
    *,
    masks: Mapping[str, Tensor] | None = None,
    resolution: int = 224,
    seed: int = 0,
    on_images: Callable[[int], None] | None = None,
) -> None:
    """Re-fit `pruned`, which the plan has made of `before`, in place, on some training images.

    Both in eval mode, on the images' device. `masks`: name of a weight of `pruned` -> where it may be other than zero
    (`pruner.masks`); what is zero stays so. `on_images(n)` is told of every n images done.
    """
    walk = _Walk(pruned, before, plan, images, masks or {}, resolution, seed)
    walk.stem()
    for number in range(1, 18):
        walk.block(number)
        if on_images:
            on_images(len(images) * number // 17 - len(images) * (number - 1) // 17)
    walk.head()


class _Walk:
    """Both networks' activations at a block's door, batch by batch; it goes forward block by block."""

    def __init__(
        self,
        pruned: MobileNetV2,
        before: MobileNetV2,
        plan: ChannelPlan,
        images: Split,
        masks: Mapping[str, Tensor],
        resolution: int,
        seed: int,
    ) -> None:
        self._new, self._old, self._seed = pruned, before, seed
        names = {layer: name for name, layer in pruned.named_modules()}
        self._masks = {layer: masks.get(f"{name}.weight") for layer, name in names.items()}
        self._keep = {name: torch.tensor(kept, device=images.images.device) for name, kept in plan.keep.items()}
        batches = eval_batches(images, batch=BATCH, resolution=resolution)
        self._doors = [(batch, batch) for batch, _ in batches]

    def stem(self) -> None:
        old, new = self._old.features[0], self._new.features[0]
        self._doors = [(old(a), new(b)) for a, b in self._doors]

    def block(self, number: int) -> None:
        """Fit the block's expansion, depthwise convolution and projection, and pass it."""
        old, new = self._old.features[number], self._new.features[number]
        assert isinstance(old, InvertedResidual)
        assert isinstance(new, InvertedResidual)
        hidden, output = self._keep[_hidden(number)], self._keep[_output(number)]
        wanted, outputs = self._look(old)
        layers = list(new.conv)
        inside = [b for _, b in self._doors]
        if len(layers) == 4:  # the first block has no expansion
            conv, norm, _ = layers[0]
            self._fit_pointwise(conv, norm, self._samples(inside), wanted[0][:, hidden])
            inside = [layers[0](b) for b in inside]
        conv, norm, activation = layers[-3]
        inside = [conv(b) for b in inside]
        self._fit_norm(norm, self._samples(inside), wanted[1][:, hidden])
        inside = [activation(norm(b)) for b in inside]
        target = self._samples(outputs)[:, output]
        if new.use_res_connect:
            target = target - self._samples([b for _, b in self._doors])
        self._fit_pointwise(layers[-2], layers[-1], self._samples(inside), target)
        inside = [layers[-1](layers[-2](b)) for b in inside]
        if new.use_res_connect:
            inside = [b + door for b, (_, door) in zip(inside, self._doors, strict=True)]
        self._doors = list(zip(outputs, inside, strict=True))

    def head(self) -> None:
        """Fit the last convolution and the classifier."""
        keep, pooled = self._keep["head"], []
        (conv_old, norm_old, _), (conv, norm, activation) = self._old.features[18], self._new.features[18]
        before = [norm_old(conv_old(a)) for a, _ in self._doors]
        self._fit_pointwise(conv, norm, self._samples([b for _, b in self._doors]), self._samples(before)[:, keep])
        for a, (_, b) in zip(before, self._doors, strict=True):
            pair = (activation(a), activation(norm(conv(b))))
            pooled.append([F.adaptive_avg_pool2d(features, 1).flatten(1) for features in pair])
        old, new = self._old.classifier[1], self._new.classifier[1]
        assert isinstance(new, nn.Linear)
        target = torch.cat([old(a) for a, _ in pooled])
        features = torch.cat([b for _, b in pooled])
        weight, means, wanted = fit(features, target, new.weight.double(), self._masks[new])
        new.weight.copy_(weight)
        new.bias.copy_(wanted - weight @ means)

    def _look(self, old: InvertedResidual) -> tuple[list[Tensor], list[Tensor]]:
        """(sampled outputs of the old block's BatchNorms but the last, its outputs); the first is empty where the block
        has no expansion."""
        norms = [layer[1] for layer in list(old.conv)[:-2]]
        seen: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}
        hooks = [
            norm.register_forward_hook(
                lambda layer, _, result: seen[layer].append(sample(result, self._seed, len(seen[layer])))
            )
            for norm in norms
        ]
        outputs = [old(a) for a, _ in self._doors]
        for hook in hooks:
            hook.remove()
        found = [torch.cat(seen[norm]) for norm in norms]
        return ([torch.empty(0)] if len(found) == 1 else []) + found, outputs

    def _samples(self, maps: list[Tensor]) -> Tensor:
        return torch.cat([sample(batch, self._seed, number) for number, batch in enumerate(maps)])

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
    covariance = centred.T @ centred / len(features)
    rest = centred.T @ (target - wanted - centred @ start.T) / len(features)
    damping = ridge(features.shape[1], len(features)) * covariance.diagonal().mean().clamp(min=1e-12)
    covariance.diagonal().add_(damping)
    if support is None:
        change = torch.cholesky_solve(rest, torch.linalg.cholesky(covariance))
        return start + change.T, means, wanted
    weight = start.clone()
    for row, places in enumerate(support):  # each output has its own equations
        left = torch.linalg.cholesky(covariance[places][:, places])
        weight[row, places] += torch.cholesky_solve(rest[places, row, None], left)[:, 0]
    return weight, means, wanted


def _set_norm(norm: nn.BatchNorm2d, factor: Tensor, mean: Tensor, variance: Tensor, wanted: Tensor) -> None:
    """BatchNorm that gives factor * (x - mean) + wanted, with the statistics of x: in training just as well."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    norm.weight.copy_(factor * torch.sqrt(variance + norm.eps))
    norm.bias.copy_(wanted)


def _hidden(block: int) -> str:
    return next(name for name, readers in READERS.items() if readers[0].layer.startswith(f"features.{block}.conv.")
                and ".hidden." in name)  # fmt: skip


def _output(block: int) -> str:
    return f"{_hidden(block).partition('.')[0]}.output"

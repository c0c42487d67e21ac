"""Training with BatchNorm's statistics frozen, which makes BatchNorm a part of the convolutions.

Normalising by the statistics of each batch takes almost half of a step's time on a CPU. By statistics that stay the
same, BatchNorm is a factor and a summand for each channel; multiplied into the weights, they cost nothing, and the
gradients of weights, factors and summands are the same by the chain rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruner.training.layers import strided_depthwise

_LENGTH, _DEPTHWISE_LENGTH = 3.0, 1.5
"""Of a channel's weights in networks of 12 to 45 MFLOPs: 1.4 to 6, mostly 2 to 4, and 0.6 to 4."""


def normalised(model: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Every convolution with the BatchNorm that follows it."""
    for module in model.modules():
        for conv, norm in pairwise(module.children()):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                yield conv, norm


@torch.no_grad()
def settle(model: nn.Module) -> None:
    """Move each BatchNorm's factor into the weights before it, in place; with its statistics, the network stays the
    same function.

    A factor of 20 would make the learning rate of an effective weight 400 times what it says; batch statistics hide
    that, frozen ones do not.
    """
    for conv, norm in normalised(model):
        factor = _statistics(norm)[2]
        _move(conv, norm, factor, torch.ones_like(factor))


@torch.no_grad()
def rescale(model: nn.Module) -> None:
    """Give each channel's weights the length that training by batch statistics leaves them with, in place; with its
    statistics, the network stays the same function.

    Batch statistics divide the learning rate of a channel by its weights' length squared. `settle` leaves the expanding
    convolutions with a tenth of their length, so the next training would move them a hundred times as fast as it says.
    """
    for conv, norm in normalised(model):
        length = conv.weight.flatten(1).norm(dim=1)
        usual = _LENGTH if conv.groups == 1 else _DEPTHWISE_LENGTH
        scale = torch.where(length > 0, usual / length, 1.0)
        _move(conv, norm, scale, _statistics(norm)[2] / scale)


def _move(conv: nn.Conv2d, norm: nn.BatchNorm2d, scale: Tensor, left: Tensor) -> None:
    """Multiply each channel's weights by `scale`, and leave BatchNorm the factor `left`."""
    mean, variance, _ = _statistics(norm)
    conv.weight.mul_(scale[:, None, None, None])
    mean.mul_(scale)
    variance.mul_(scale.square())
    norm.weight.copy_(left * torch.sqrt(variance + norm.eps))


def freeze(model: nn.Module) -> None:
    """Let BatchNorm normalise by its running statistics, though the network is in training mode."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()


def fold(model: nn.Module) -> None:
    """Compute the same as `freeze` has computed, without passes for BatchNorm; the parameters stay what they are."""
    for conv, norm in normalised(model):
        conv.forward = partial(_convolved, conv, norm)  # type: ignore[method-assign]
        norm.forward = _same  # type: ignore[method-assign, assignment]


def _convolved(conv: nn.Conv2d, norm: nn.BatchNorm2d, images: Tensor) -> Tensor:
    mean, _, factor = _statistics(norm)
    weight, bias = conv.weight * factor[:, None, None, None], norm.bias - mean * factor
    if conv.groups > 1 and conv.stride == (2, 2) and torch.is_autocast_enabled("cpu"):
        return strided_depthwise(weight, bias, images)
    return F.conv2d(images, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _statistics(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, variance, the factor that a channel's deviation from its mean gets)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return norm.running_mean, norm.running_var, norm.weight * torch.rsqrt(norm.running_var + norm.eps)


def _same(images: Tensor) -> Tensor:
    return images

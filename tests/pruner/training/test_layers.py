"""Layers that are cheaper on a CPU: the values and gradients of torch's own."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruner.training.layers import StridedDepthwise, batch_norm, relu6


def test_relu6_in_place_is_relu6() -> None:
    values = torch.tensor([-1.0, 0.0, 1e-9, 3.0, 6.0, 7.0, float("nan")], requires_grad=True)
    ours, usual = relu6(values * 1), F.relu6(values)
    assert torch.equal(ours.nan_to_num(9), usual.nan_to_num(9))
    found, wanted = (torch.autograd.grad(output[:6].sum(), values, retain_graph=True)[0] for output in (ours, usual))
    assert torch.equal(found, wanted)


def test_a_strided_depthwise_convolution_has_the_gradients_of_any_other() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 8, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(3, 1, 3, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    usual = F.conv2d(images, weight, None, 2, 1, 1, 3)
    ours = StridedDepthwise.apply(images, weight, None)
    assert torch.equal(ours, usual)
    ahead = torch.randn(usual.shape, dtype=torch.float64, generator=generator)
    wanted = torch.autograd.grad((usual * ahead).sum(), (images, weight))
    found = torch.autograd.grad((ours * ahead).sum(), (images, weight))
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


SHAPES = [
    (4, 112, 16),  # as the first layers of the smallest networks
    (12, 56, 16),
    (20, 45, 16),
    (28, 33, 17),  # an odd number of pixels
    (15, 65, 15),
    (24, 56, 16),  # enough channels
    (12, 8, 4),  # too small to pay
]


@pytest.mark.parametrize(("channels", "size", "count"), SHAPES)
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_batchnorm_is_no_further_from_the_truth_than_torchs(
    channels: int, size: int, count: int, kind: torch.dtype
) -> None:
    """Nor are its gradients and running statistics, though the images are far from zero."""
    generator = torch.Generator().manual_seed(0)
    images = (
        3 * torch.randn(count, channels, size, size, generator=generator) + 5 * torch.arange(channels)[:, None, None]
    )
    images = images.to(kind).to(memory_format=torch.channels_last)
    gradient = torch.randn(images.shape, generator=generator).to(kind).to(memory_format=torch.channels_last)
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, 0.5, 2.0, generator=generator)
    nn.init.uniform_(norm.bias, -1.0, 1.0, generator=generator)
    norms = [copy.deepcopy(norm), copy.deepcopy(norm)]
    truth = _normalised(nn.BatchNorm2d.forward, copy.deepcopy(norm).double(), images.double(), gradient.double())
    usual = _normalised(nn.BatchNorm2d.forward, norms[0], images, gradient)
    ours = _normalised(batch_norm, norms[1], images, gradient)
    for name, wanted, theirs, found in zip(("outputs", *_NAMES), truth, usual, ours, strict=True):
        off, usually = ((each.double() - wanted).norm() / wanted.norm() for each in (found, theirs))
        assert off <= max(2 * usually, 1e-6), name
    assert ours[0].is_contiguous(memory_format=torch.channels_last)
    assert ours[0].dtype == kind


_NAMES = ("gradient of the images", "of the weight", "of the bias", "running mean", "running variance")


def _normalised(
    way: Callable[[nn.BatchNorm2d, Tensor], Tensor], norm: nn.BatchNorm2d, images: Tensor, gradient: Tensor
) -> tuple[Tensor, ...]:
    """(outputs, gradients, running statistics) of a BatchNorm, its outputs changed in place as by ReLU6."""
    inputs = images.clone().requires_grad_()
    outputs = way(norm, inputs)
    outputs.mul_(1.0)
    outputs.backward(gradient)
    return outputs.detach(), inputs.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var

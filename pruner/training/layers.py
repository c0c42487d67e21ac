"""Layers of MobileNetV2 with the same values as torch's, and passes that are cheaper on a CPU."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ROW, _MANY = 256, 400_000
"""Numbers side by side where BatchNorm's channels are few (64 to 512 are equally fast), and in all, for it to pay."""


def relu6(images: Tensor) -> Tensor:
    """ReLU6 in place. Torch's own keeps a copy of its input for the gradient, though the output tells as much."""
    found: Tensor = _ReLU6.apply(images)
    return found


class _ReLU6(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images):  # type: ignore[no-untyped-def]
        images.clamp_(0.0, 6.0)
        ctx.mark_dirty(images)
        ctx.save_for_backward(images)
        return images

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        (output,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(gradient, output, 0.0, 6.0)


def strided_depthwise(weight: Tensor, bias: Tensor | None, images: Tensor) -> Tensor:
    """A depthwise 3x3 convolution of stride 2 in bfloat16, where oneDNN's gradient of its input is far slower than in
    float32 (two Xeon cores with AMX, 96 channels at 112 px, batch 32: 386 against 28 ms)."""
    half = torch.bfloat16
    found: Tensor = StridedDepthwise.apply(images.to(half), weight.to(half), None if bias is None else bias.to(half))
    return found


class StridedDepthwise(torch.autograd.Function):
    """A depthwise 3x3 convolution of stride 2, padding 1, of images of even size.

    The gradient of its input is a convolution of stride 1 of the output's gradient, with zeros between.
    """

    @staticmethod
    def forward(ctx, images, weight, bias):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(images, weight)
        return F.conv2d(images, weight, bias, 2, 1, 1, len(weight))

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        images, weight = ctx.saved_tensors
        apart = torch.zeros_like(images)
        apart[:, :, ::2, ::2] = gradient
        of_images = F.conv2d(apart, weight.flip(2, 3), None, 1, 1, 1, len(weight))
        _, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient, images, weight, [len(weight)], [2, 2], [1, 1], [1, 1], False, [0, 0], len(weight),
            [False, True, ctx.needs_input_grad[2]],
        )  # fmt: skip
        return of_images, of_weight, of_bias


def batch_norm(norm: nn.BatchNorm2d, images: Tensor) -> Tensor:
    """BatchNorm by the statistics of a batch, which also go into the running ones.

    Channels last, torch computes as many channels at once as its vectors hold (16 in float32 with AVX-512), and fewer
    one by one. Here pixels that lie side by side are taken for further channels, whose statistics are merged: 2.3 to
    3.5 times as fast with 4 channels, 1.6 to 1.8 with 12, no faster with 24 (a Xeon; tests/benchmarks/bench_layers.py).
    """
    pixels, count = _pixels(images), images.numel() // images.shape[1]
    if pixels == 1:
        return nn.BatchNorm2d.forward(norm, images)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    found: Tensor
    found, mean, variance = _NarrowBatchNorm.apply(images, norm.weight, norm.bias, norm.eps, pixels)
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(variance * (count / (count - 1)), norm.momentum)
    return found


def _pixels(images: Tensor) -> int:
    """How many pixels BatchNorm should take together; 1 where torch's own is as fast."""
    channels, count = images.shape[1], images.numel() // images.shape[1]
    few = channels < 16 or (channels < 32 and channels % 8 != 0)
    if not few or images.numel() < _MANY or not images.is_contiguous(memory_format=torch.channels_last):
        return 1
    pixels = 1
    while pixels * channels < _ROW and count % (2 * pixels) == 0:
        pixels *= 2
    return pixels if pixels * channels >= _ROW // 4 else 1


class _NarrowBatchNorm(torch.autograd.Function):
    """BatchNorm in training of few channels, where `pixels` in a row are computed at a time.

    Two passes forward and three back, most of them calls of torch's BatchNorm with statistics that are given.
    """

    @staticmethod
    def forward(ctx, images, weight, bias, eps, pixels):  # type: ignore[no-untyped-def]
        rows = _rows(images, pixels)
        single = torch.zeros(rows.shape[1])  # without running statistics, bfloat16's would be rounded
        means, variances = (found.view(pixels, -1) for found in torch.batch_norm_update_stats(rows, single, single, 0))
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        ctx.save_for_backward(images, weight, mean, variance)
        ctx.eps, ctx.pixels = eps, pixels
        ctx.mark_non_differentiable(mean, variance)
        found = torch.empty_like(images)
        _normalise(rows, weight, bias, mean, variance, eps, _rows(found, pixels))
        return found, mean, variance

    @staticmethod
    def backward(ctx, gradient, *_):  # type: ignore[no-untyped-def]
        images, weight, mean, variance = ctx.saved_tensors
        pixels, count = ctx.pixels, images.numel() // len(mean)
        rows = _rows(images, pixels)
        gradients = _rows(gradient.contiguous(memory_format=torch.channels_last), pixels)
        scale = weight * torch.rsqrt(variance + ctx.eps)
        factors = torch.stack([weight, mean, variance, scale]).repeat(1, pixels)
        back = partial(
            torch.ops.aten.native_batch_norm_backward, gradients, rows, *factors[:3], None, None, False, ctx.eps
        )
        _, of_weight, of_bias = back([False, True, True])
        of_weight, of_bias = of_weight.view(pixels, -1).sum(0), of_bias.view(pixels, -1).sum(0)
        # weight / deviation * (gradient - of_bias / count - normalised image * of_weight / count)
        less = scale / -count
        of_images = torch.empty_like(images)
        found = _rows(of_images, pixels)
        _normalise(rows, less * of_weight, less * of_bias, mean, variance, ctx.eps, found)
        if found.dtype == torch.float32:
            found.addcmul_(gradients, factors[3, :, None, None])
        else:  # where the factors would be rounded
            found += back([True, False, False])[0]
        return of_images, of_weight, of_bias, None, None


def _rows(images: Tensor, pixels: int) -> Tensor:
    """(images, channels, height, width) as one image of (pixels * channels) channels; a view."""
    flat = images.permute(0, 2, 3, 1).view(1, -1, 1, pixels * images.shape[1])
    return flat.permute(0, 3, 1, 2)


def _normalise(
    rows: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float, found: Tensor
) -> None:
    """Write rows, normalised by statistics that are given, into `found`."""
    factors = torch.stack([weight, bias, mean, variance]).repeat(1, rows.shape[1] // len(mean))
    unused = torch.empty(0), torch.empty(0)
    torch.ops.aten.native_batch_norm.out(
        rows, *factors.unbind(), False, 0.0, eps, out=found, save_mean=unused[0], save_invstd=unused[1]
    )

"""Layers of MobileNetV2 with the same values as torch's, and gradients that are cheaper on a CPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


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

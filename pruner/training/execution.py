"""How a network's training is executed: eager or compiled, batches whole or split, channels last or first, in float32
or bfloat16 activations.

All ways compute the same up to rounding, but for the statistics of a split batch (`pruner.training.split`); which is
faster depends on the network, the batch and the machine, so it is measured (`best`). Channels lie last in memory, but
for `eager-nchw`. On two cores of an AMD EPYC (AVX2, torch 2.14, 224 px, batch 64) 20 MFLOPs in widths of 4 trained at
74 images a second eager, 116 with nchw and 154 split; 45 MFLOPs in widths of 8 at 112, 71 and 122.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.errors import InputError
from pruner.system.machine import has_fast_half
from pruner.training.split import part_count, split_runner

Run = Callable[[Tensor], Tensor]
"""From normalized images (batch, 3, pixels, pixels) to logits (batch, classes), with gradients."""

_ROUNDS = 3
"""Steps that are timed, of which the fastest counts: others on the machine only ever slow a step down."""


def runner(model: nn.Module, execution: str, shape: tuple[int, int]) -> Run:
    """What trains `model` (on its device) as `execution`, one of EXECUTIONS but auto, says.

    Its weights are laid out anew in memory for that, and an optimizer's state must follow (`align_state`). `shape`:
    images a batch, pixels a side. Compiling happens in here and takes a minute or two on two cores. Raises InputError
    if torch cannot compile on this machine.
    """
    compiled, half = execution.startswith("compiled"), execution.endswith("bf16")
    layout = torch.contiguous_format if execution.endswith("nchw") else torch.channels_last
    model.to(memory_format=layout)
    device = next(model.parameters()).device
    called: Run = model
    if execution == "eager-split" and device.type == "cpu" and (parts := part_count(shape[0])) > 1:
        assert isinstance(model, MobileNetV2)
        called = split_runner(model, parts)
    if compiled:
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses CUDA where none is wanted
        torch.compiler.reset()  # or networks compiled before would use up dynamo's limit, and this one stay eager
        called = torch.compile(model, dynamic=False)
    replaced = _replaced(model) if half and device.type == "cpu" else {}
    run = partial(_run, called, device.type, layout, replaced, half)
    if compiled:
        try:
            torch.compile(torch.square)(torch.ones(16, device=device))  # where that fails, it does not take a minute
            seconds_a_step(model, run, shape)
        except Exception as error:  # of the compiler, which has a dozen kinds
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"execution: {execution!r} does not work here ({reason}); try eager") from error
    return run


def best(model: nn.Module, shape: tuple[int, int], images: int) -> tuple[str, dict[str, float]]:
    """(the execution, but auto, in which training on so many images ends first; images a second of those measured).

    All but compiling is chosen by eager steps; compiling is tried where it can pay for the time it takes.
    """
    speeds: dict[str, float] = {}

    def measure(execution: str) -> None:
        speeds[execution] = shape[0] / seconds_a_step(model, runner(model, execution, shape), shape)

    device = next(model.parameters()).device
    measure("eager")
    if device.type == "cpu":
        measure("eager-nchw")
        if part_count(shape[0]) > 1:
            measure("eager-split")
    if has_fast_half(device):
        measure("eager-bf16")
    eager = max(speeds, key=speeds.__getitem__)
    if images / speeds[eager] > _WORTH_COMPILING:
        with suppress(InputError):  # no C++ compiler, say
            measure("compiled-bf16" if eager.endswith("bf16") else "compiled")
    return max(speeds, key=speeds.__getitem__), speeds


_WORTH_COMPILING = 600.0
"""Seconds of eager training from which on compiling, which saves about half of them, pays for its minutes."""


def seconds_a_step(model: nn.Module, run: Run, shape: tuple[int, int]) -> float:
    """The time of one step forward and backward, the first (which may compile) not counted; `model` stays as it was."""
    batch_size, pixels = shape
    weight = next(model.parameters())
    images = torch.randn((batch_size, 3, pixels, pixels), generator=torch.Generator().manual_seed(0))
    images = images.to(weight.device).contiguous(memory_format=torch.channels_last)
    training, buffers = model.training, [buffer.clone() for buffer in model.buffers()]
    model.train()
    times = []
    with torch.random.fork_rng(devices=[weight.device] if weight.device.type == "cuda" else []):
        for _ in range(_ROUNDS + 1):
            began = time.perf_counter()
            run(images).square().mean().backward()  # type: ignore[no-untyped-call]
            weight.grad.sum().item()  # type: ignore[union-attr]  # waits for a GPU
            times.append(time.perf_counter() - began)
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        for buffer, was in zip(model.buffers(), buffers, strict=True):
            buffer.copy_(was)
    model.train(training)
    return min(times[1:])


def align_state(optimizer: torch.optim.Optimizer) -> None:
    """Lay out in memory what the optimizer remembers of each weight as the weight itself is.

    Fused optimizers go through both in the order in which they lie there: where these differ, they give a weight
    another's momentum, and say nothing (torch 2.14).
    """
    for weight, remembered in optimizer.state.items():
        for name, value in remembered.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                remembered[name] = torch.empty_like(weight).copy_(value)


def half_type(device: torch.device) -> torch.dtype:
    """The 16-bit type to train in: bfloat16, or float16 on a GPU that lacks it."""
    return torch.float16 if device.type == "cuda" and not has_fast_half(device) else torch.bfloat16


def _run(
    called: Run, device: str, layout: torch.memory_format, replaced: dict[nn.Conv2d, Run], half: bool, images: Tensor
) -> Tensor:
    images = images.contiguous(memory_format=layout)
    with _forwards(replaced), torch.autocast(device, half_type(images.device), enabled=half):
        return called(images).float()


@contextmanager
def _forwards(replaced: dict[nn.Conv2d, Run]) -> Iterator[None]:
    """Other forwards for some layers, for the time of one call, so that copies and files know nothing of them."""
    for layer, forward in replaced.items():
        layer.forward = forward  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        for layer in replaced:
            del layer.forward


def _replaced(model: nn.Module) -> dict[nn.Conv2d, Run]:
    """The depthwise 3x3 convolutions of stride 2: oneDNN's gradient of their input is far slower in bfloat16 than in
    float32 (two Xeon cores with AMX, 96 channels at 112 px, batch 32: 386 against 28 ms)."""
    return {
        layer: partial(_strided_depthwise, layer.weight)
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d) and layer.groups > 1 and layer.stride == (2, 2)
    }


def _strided_depthwise(weight: Tensor, images: Tensor) -> Tensor:
    found: Tensor = _StridedDepthwise.apply(images.bfloat16(), weight.bfloat16())
    return found


class _StridedDepthwise(torch.autograd.Function):
    """A depthwise 3x3 convolution of stride 2, padding 1, of images of even size.

    The gradient of its input is a convolution of stride 1 of the output's gradient, with zeros between.
    """

    @staticmethod
    def forward(ctx, images, weight):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(images, weight)
        return F.conv2d(images, weight, None, 2, 1, 1, len(weight))

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        images, weight = ctx.saved_tensors
        apart = torch.zeros_like(images)
        apart[:, :, ::2, ::2] = gradient
        of_images = F.conv2d(apart, weight.flip(2, 3), None, 1, 1, 1, len(weight))
        _, of_weight, _ = torch.ops.aten.convolution_backward(
            gradient, images, weight, None, [2, 2], [1, 1], [1, 1], False, [0, 0], len(weight), [False, True, False]
        )
        return of_images, of_weight

"""What came out: accuracy, operations as the grader counts them, parameters, bytes."""

from __future__ import annotations

import copy
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch_pruning as tp
from torch import Tensor, nn

from pruner.data.batches import map_batches
from pruner.data.datasets import Split
from pruner.network.count import GRADER_RESOLUTION
from pruner.weights.masks import looks_masked, weights

GRADER_BATCH = 64
"""The course's loader drops its last batch of fewer images: of 10,000 it sees 9,984."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One network, measured."""

    accuracy: float
    """Share of the images that it classifies right, in [0, 1]."""
    images: int
    mflops: float
    params: int
    size_bytes: int
    """Of the network as it is handed in: one pickled module of 32-bit floats."""
    nonzero_params: int | None = None
    """See `nonzero_params`; None in files of versions that did not count them."""


def count(model: nn.Module, resolution: int = GRADER_RESOLUTION) -> tuple[float, int]:
    """(millions of operations for an image of that many pixels a side, parameters), by the grader's own function.

    Multiply-adds of convolutions and the classifier, 2 per BatchNorm element, 1 per ReLU6 element.
    """
    device = next(model.parameters()).device
    example = torch.zeros(1, 3, resolution, resolution, device=device)
    operations, params = tp.utils.count_ops_and_params(model, example)
    return operations / 1e6, int(params)


def evaluate(
    model: nn.Module,
    split: Split,
    *,
    resolution: int,
    batch_size: int = 32,
    on_images: Callable[[int], None] | None = None,
) -> Tensor:
    """For every image, in order, whether the network classifies it right: a bool tensor (images,) on the CPU.

    Images are resized as the course's grader does. The network, on whatever device, is left as it was.
    """
    # Channels last is twice as fast for inference. In a copy: an optimizer's state lies as the weights do.
    still = copy.deepcopy(model).eval().to(split.images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return right_answers(still, split, resolution=resolution, batch_size=batch_size, on_images=on_images)


def right_answers(
    classify: Callable[[Tensor], Tensor],
    split: Split,
    *,
    resolution: int,
    batch_size: int = 32,
    on_images: Callable[[int], None] | None = None,
) -> Tensor:
    """As `evaluate`, of anything that makes logits of inputs and may be called in several threads at once."""

    def right(images: Tensor, labels: Tensor, _number: int) -> Tensor:
        found: Tensor = classify(images).to(labels.device).argmax(1) == labels
        return found

    with torch.inference_mode():
        found = list(map_batches(right, split, batch_size=batch_size, resolution=resolution, on_images=on_images))
    return torch.cat(found).cpu()


def accuracy(right: Tensor) -> float:
    """The share of right answers, in [0, 1]."""
    return right.sum().item() / len(right)


def drop_last(right: Tensor) -> Tensor:
    """The answers that the course's grader sees: those in whole batches of 64; all of them if there are fewer."""
    return right[: len(right) // GRADER_BATCH * GRADER_BATCH or len(right)]


def measure(
    model: nn.Module,
    split: Split,
    *,
    resolution: int = GRADER_RESOLUTION,
    count_resolution: int = GRADER_RESOLUTION,
    on_images: Callable[[int], None] | None = None,
) -> Measurement:
    """Measure a network on a split, images resized as the grader does.

    Args:
        model: The network, on any device; it is left as it was.
        split: The images to classify.
        resolution: Pixels a side to which they are resized.
        count_resolution: Pixels a side for which operations are counted.
        on_images: Called with n after every n images.

    Returns:
        Its accuracy on them, and its operations, parameters and bytes.
    """
    right = evaluate(model, split, resolution=resolution, on_images=on_images)
    mflops, params = count(model, count_resolution)
    return Measurement(
        accuracy=accuracy(right), images=len(right), mflops=mflops, params=params, size_bytes=size_bytes(model),
        nonzero_params=nonzero_params(model),
    )  # fmt: skip


def nonzero_params(model: nn.Module) -> int:
    """How many parameters the masks leave: those that are not zero; all of them in a network that has no masks, whose
    zeros are a fresh BatchNorm's, or come from training or rounding (see `looks_masked`)."""
    masked = any(looks_masked(weight) for weight in weights(model).values())
    return sum(int(p.count_nonzero()) if masked else p.numel() for p in model.parameters())


def compressed_bytes(model: nn.Module) -> int:
    """The size of the network as one pickled module, compressed (zlib): zeros take next to no room there."""
    buffer = io.BytesIO()
    torch.save(model, buffer)
    return len(zlib.compress(buffer.getvalue()))


def size_bytes(model: nn.Module) -> int:
    """The size of the network as one pickled module."""
    buffer = io.BytesIO()
    torch.save(model, buffer)
    return buffer.tell()

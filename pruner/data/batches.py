"""Batches made from uint8 images by tensor operations on whole batches; the grader's resize.

No image is handled alone, and no loader processes are needed: a batch costs about 1 % of a training step
(tests/benchmarks/bench_epoch.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from pruner.data.datasets import Split
from pruner.system.cores import on_cores
from pruner.system.seeds import mix

R = TypeVar("R")

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's, of each colour, as fractions of 255."""


class Batch(NamedTuple):
    """Images to train on."""

    images: Tensor
    """uint8 (batch, 3, pixels, pixels), augmented; `prepared` makes a network's inputs of them."""
    labels: Tensor
    which: Tensor
    """Which images of the split they are."""
    mirrored: Tensor
    """bool: which of them were mirrored."""


def train_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    images: int = 0,
    flip: bool,
    random_shift: int,
) -> Iterator[Batch]:
    """One epoch of shuffled, augmented batches.

    Order and augmentation follow from seed and epoch alone, so a resumed run sees the same batches. The last,
    smaller batch is left out unless it is the only one: BatchNorm learns little from a handful of images.
    """
    device = split.images.device
    generator = torch.Generator().manual_seed(mix(seed, epoch))
    count = min(images or len(split), len(split))
    order = torch.randperm(len(split), generator=generator)[:count].to(device)
    moves = torch.randint(-random_shift, random_shift + 1, (2, count), generator=generator).to(device)
    mirror = (torch.rand(count, generator=generator) < 0.5).to(device) & flip
    for start in range(0, count - batch_size + 1, batch_size) if count > batch_size else (0,):
        part = slice(start, start + batch_size)
        index = order[part]
        moved = _moved(split.images[index], moves[:, part], mirror[part])
        split.was_read(len(index))
        yield Batch(moved, split.labels[index], index, mirror[part])


def steps_per_epoch(split: Split, *, batch_size: int, images: int = 0) -> int:
    """How many batches `train_batches` yields."""
    return max(1, min(images or len(split), len(split)) // batch_size)


def images_per_epoch(split: Split, *, batch_size: int, images: int = 0) -> int:
    """How many images these batches hold."""
    count = min(images or len(split), len(split))
    return count if count < batch_size else count - count % batch_size


def map_batches(
    function: Callable[[Tensor, Tensor, int], R],
    split: Split,
    *,
    batch_size: int,
    resolution: int,
    on_images: Callable[[int], None] | None = None,
) -> Iterator[R]:
    """What `function` makes of (inputs, labels, the batch's number) for each batch of a split, in order.

    Images are in order and resized exactly as the course's grader does, otherwise unchanged. Batches are prepared, and
    `function` runs, on a core each (`pruner.system.cores`).

    Args:
        function: Called in several threads; inputs are float (batch, 3, resolution, resolution), channels last.
        split: The images.
        batch_size: Images a batch; the last may have fewer.
        resolution: Pixels a side.
        on_images: Called with n after every n images.
    """

    def each(start: int) -> tuple[R, int]:
        images, labels = (values[start : start + batch_size] for values in (split.images, split.labels))
        inputs = normalized(resized_as_pil(images, resolution))
        return function(inputs, labels, start // batch_size), len(labels)

    for result, count in on_cores(each, range(0, len(split), batch_size)):
        split.was_read(count)
        if on_images:
            on_images(count)
        yield result


def prepared(images: Tensor, resolution: int) -> Tensor:
    """A network's inputs for training, of uint8 images: resized and normalised, channels last."""
    return normalized(_resized(images, resolution))


def resized_as_pil(images: Tensor, resolution: int) -> Tensor:
    """uint8 images (n, 3, h, w) resized bilinearly as PIL does, which the grader uses: torchvision's `Resize`.

    For CIFAR-10's 32 x 32 pixels enlarged to any size bit for bit (a test compares them); from other sizes one value
    in a hundred may be off by 1 of 255. Always computed on the CPU: torch has no uint8 resize elsewhere. Returned on
    the device of the images, channels last.
    """
    channels_last = images.cpu().contiguous(memory_format=torch.channels_last)
    if images.shape[-1] != resolution:
        size = (resolution, resolution)
        channels_last = F.interpolate(channels_last, size=size, mode="bilinear", antialias=True)
    return channels_last.to(images.device)


def _resized(images: Tensor, resolution: int) -> Tensor:
    """For training: as PIL does on the CPU, where that is also the fastest way; rounded alike on a GPU."""
    if images.device.type == "cpu" or images.shape[-1] == resolution:
        return resized_as_pil(images, resolution)
    size = (resolution, resolution)
    large = F.interpolate(images.float(), size=size, mode="bilinear", antialias=resolution < images.shape[-1])
    return large.round_().contiguous(memory_format=torch.channels_last)


def normalized(images: Tensor) -> Tensor:
    """Images (n, 3, h, w) of 0..255 -> floats by ImageNet's mean and deviation, the grader's; channels last."""
    count, channels, height, width = images.shape
    # A row of pixels with its channels interleaved is one long vector: twice as fast as broadcasting over channels.
    rows = images.permute(0, 2, 3, 1).reshape(-1, width * channels)
    mean, std = torch.tensor(MEAN, device=images.device), torch.tensor(STD, device=images.device)
    # Made floats first: as a factor, bytes would be converted a few at a time.
    floats = rows.to(torch.float32, copy=True).mul_((1 / (255 * std)).repeat(width)).sub_((mean / std).repeat(width))
    return floats.view(count, height, width, channels).permute(0, 3, 1, 2)


def _moved(images: Tensor, moves: Tensor, mirror: Tensor) -> Tensor:
    """Shift each image by its own (2, n) offsets, reflecting at the edges, and mirror those marked."""
    size = images.shape[-1]
    grid = torch.arange(size, device=images.device)
    rows = _reflected(grid + moves[0][:, None], size)
    columns = _reflected(torch.where(mirror[:, None], size - 1 - grid, grid) + moves[1][:, None], size)
    shape = images.shape
    images = images.gather(2, rows[:, None, :, None].expand(shape))
    return images.gather(3, columns[:, None, None, :].expand(shape))


def _reflected(index: Tensor, size: int) -> Tensor:
    return (size - 1) - ((size - 1) - index.abs()).abs()

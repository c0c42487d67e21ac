"""Data sets as uint8 tensors, and the batches made from them by tensor operations on whole batches.

No image is handled alone, and no loader processes are needed: the data set lies in memory once, on the device of
training, and a batch costs about 1 % of a training step (tests/benchmarks/bench_epoch.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple
from urllib.error import URLError

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pruner.errors import InputError
from pruner.seeds import mix

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's, of each colour, as fractions of 255."""


@dataclass(frozen=True, slots=True)
class Split:
    """Images and their classes."""

    images: Tensor
    """uint8 of shape (images, 3, height, width)."""
    labels: Tensor
    """int64 of shape (images,)."""

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Split:
        """The first `count` images (all of them if there are fewer)."""
        return Split(self.images[:count], self.labels[:count])

    def drawn(self, count: int, seed: int) -> Split:
        """`count` images chosen by the seed."""
        chosen = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count]
        chosen = chosen.to(self.images.device)
        return Split(self.images[chosen], self.labels[chosen])

    def to(self, device: torch.device) -> Split:
        """The same images on a device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, slots=True)
class Dataset:
    """Train, holdout and test. The search may look at the holdout; test is for grading a finished model."""

    name: str
    classes: int
    train: Split
    holdout: Split
    test: Split
    mirrors: bool
    """Does a mirror image keep its class?"""

    def to(self, device: torch.device) -> Dataset:
        """The same data set on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("train", "holdout", "test")}
        return replace(self, **moved)


def load(name: str, root: Path | None = None, *, holdout: int = 0, seed: int = 0) -> Dataset:
    """The data set of that name; `holdout` images of its training part are held out (0: its usual number)."""
    if name == "digits":
        return digits(holdout=holdout or 297, seed=seed)
    if name == "cifar10":
        return cifar10(root, holdout=holdout or 5000, seed=seed)
    raise InputError(f"data: {name!r} is not one of cifar10, digits")


def digits(*, holdout: int = 297, seed: int = 0) -> Dataset:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels: 1,400 to train and hold out, 397 to test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))
    images = grey[:, None].repeat(1, 3, 1, 1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    learn, test = _hold_out(Split(images, labels), 397, 10, seed=0)
    train, held = _hold_out(learn, holdout, 10, seed)
    return Dataset("digits", 10, train, held, test, mirrors=False)


def cifar10(root: Path | None = None, *, holdout: int = 5000, seed: int = 0) -> Dataset:
    """CIFAR-10 as torchvision has it: 50,000 images to train and hold out, 10,000 to test, of 32 x 32 pixels.

    `root` is the folder with `cifar-10-batches-py`; without one, the environment's CIFAR10_ROOT or a cache folder.
    It is downloaded where it is absent. Raises InputError where that is not possible.
    """
    from torchvision.datasets import CIFAR10

    root = cifar10_folder(root)
    try:
        try:
            learn = _as_split(CIFAR10(root, train=True))
        except RuntimeError:  # it is not there, or incomplete
            from pruner.download import download_cifar10

            download_cifar10(root)
            learn = _as_split(CIFAR10(root, train=True))
        test = _as_split(CIFAR10(root, train=False))
    except (URLError, OSError, RuntimeError) as error:
        detail = str(error).splitlines()[0]
        raise InputError(
            f"CIFAR-10: {root} has no complete cifar-10-batches-py and it cannot be downloaded there ({detail}); give "
            "the folder that holds it with --data-root or CIFAR10_ROOT"
        ) from error
    train, held = _hold_out(learn, holdout, 10, seed)
    return Dataset("cifar10", 10, train, held, test, mirrors=True)


def cifar10_folder(root: Path | None = None) -> Path:
    """The folder with `cifar-10-batches-py`: the one given (or its inner one), CIFAR10_ROOT, or a cache folder."""
    root = root or Path(os.environ.get("CIFAR10_ROOT") or "~/.cache/prune-search/cifar10").expanduser()
    return root.parent if (root / "data_batch_1").is_file() else root


def _as_split(source: object) -> Split:
    images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()  # type: ignore[attr-defined]
    return Split(images, torch.tensor(source.targets))  # type: ignore[attr-defined]


def _hold_out(split: Split, count: int, classes: int, seed: int) -> tuple[Split, Split]:
    """(the rest, `count` images): every class in proportion, chosen by the seed alone."""
    if not 0 < count < len(split):
        raise InputError(f"holdout: {count} of {len(split)} training images cannot be held out")
    shuffled = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    # Walking the classes in turn deals out every class evenly, up to one image.
    rank = torch.empty_like(shuffled)
    for label in range(classes):
        members = shuffled[split.labels[shuffled] == label]
        rank[members] = (torch.arange(len(members)) * len(split)).div(len(members), rounding_mode="floor")
    order = shuffled[rank[shuffled].argsort(stable=True)]
    held, rest = order[:count].sort().values, order[count:].sort().values
    return Split(split.images[rest], split.labels[rest]), Split(split.images[held], split.labels[held])


# ---------------------------------------------------------------- batches


class Batch(NamedTuple):
    """Images to train on."""

    images: Tensor
    """float (batch, 3, resolution, resolution), augmented."""
    labels: Tensor
    which: Tensor
    """Which images of the split they are."""
    mirrored: Tensor
    """bool: which of them were mirrored."""


def train_batches(
    split: Split, *, batch: int, resolution: int, seed: int, epoch: int, images: int = 0, flip: bool, shift: int
) -> Iterator[Batch]:
    """One epoch of shuffled, augmented batches.

    Order and augmentation follow from seed and epoch alone, so a resumed run sees the same batches. The last,
    smaller batch is left out unless it is the only one: BatchNorm learns little from a handful of images.
    """
    device = split.images.device
    generator = torch.Generator().manual_seed(mix(seed, epoch))
    count = min(images or len(split), len(split))
    order = torch.randperm(len(split), generator=generator)[:count].to(device)
    moves = torch.randint(-shift, shift + 1, (2, count), generator=generator).to(device)
    mirror = (torch.rand(count, generator=generator) < 0.5).to(device) & flip
    for start in range(0, count - batch + 1, batch) if count > batch else (0,):
        part = slice(start, start + batch)
        index = order[part]
        small = _moved(split.images[index], moves[:, part], mirror[part])
        yield Batch(normalized(_resized(small, resolution)), split.labels[index], index, mirror[part])


def steps_per_epoch(split: Split, *, batch: int, images: int = 0) -> int:
    """How many batches `train_batches` yields."""
    return max(1, min(images or len(split), len(split)) // batch)


def images_per_epoch(split: Split, *, batch: int, images: int = 0) -> int:
    """How many images these batches hold."""
    count = min(images or len(split), len(split))
    return count if count < batch else count - count % batch


def eval_batches(split: Split, *, batch: int, resolution: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in order, resized exactly as the course's grader does, otherwise unchanged."""
    for start in range(0, len(split), batch):
        images = split.images[start : start + batch]
        yield normalized(resized_as_pil(images, resolution)), split.labels[start : start + batch]


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
    floats = torch.mul(rows, (1 / (255 * std)).repeat(width)).sub_((mean / std).repeat(width))
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

"""Data sets as uint8 tensors: train, holdout and test; those that are made in memory from scikit-learn and CIFAR-10."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor

from pruner.data.known import CACHE, SMALL
from pruner.data.mapped import Mapped
from pruner.errors import InputError


@dataclass(frozen=True, slots=True)
class Split:
    """Images and their labels."""

    images: Tensor
    """uint8 of shape (images, 3, height, width), in memory or mapped from a file."""
    labels: Tensor
    """int64 of shape (images,)."""
    mapped: Mapped | None = None
    """The file that the images are mapped from."""

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Split:
        """The first `count` images (all of them if there are fewer)."""
        return Split(self.images[:count], self.labels[:count], self.mapped)

    def drawn(self, count: int, seed: int) -> Split:
        """`count` random images, determined by the seed; copied into memory."""
        chosen = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count]
        chosen = chosen.to(self.images.device)
        return Split(self.images[chosen], self.labels[chosen])

    def to(self, device: torch.device) -> Split:
        """The split moved to a device."""
        images = self.images.to(device)
        return Split(images, self.labels.to(device), self.mapped if images is self.images else None)

    def was_read(self, count: int) -> None:
        """Tell that so many images were read; a mapped file then gives memory back now and then."""
        if self.mapped:
            self.mapped.was_read(count * self.images[0].numel())


@dataclass(frozen=True, slots=True)
class Dataset:
    """Train, holdout and test. The search may look at the holdout; test is for grading a finished model."""

    name: str
    class_names: tuple[str, ...]
    """Label -> name."""
    train: Split
    holdout: Split
    test: Split
    mirrors: bool
    """Does a mirrored image keep its class?"""
    graded_on: str = "test"
    """What `test` is; `val` where a folder has no test images, and those of the holdout stand in for them."""
    fingerprint: str = ""
    """The hash of its images and their division, where these are the user's and may change."""
    notes: tuple[str, ...] = ()
    """What the user should know of it, a line each."""

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    @property
    def key(self) -> str:
        """A name for files: the data set's, and another one once its images change."""
        return f"{self.name}-{self.fingerprint}" if self.fingerprint else self.name

    def to(self, device: torch.device) -> Dataset:
        """The data set moved to a device."""
        moved = {name: getattr(self, name).to(device) for name in ("train", "holdout", "test")}
        return replace(self, **moved)


def digits(*, holdout: int = 297, seed: int = 0) -> Dataset:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels: 1,400 for train and holdout, 397 for test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))
    images = grey[:, None].repeat(1, 3, 1, 1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    learn, test = hold_out(Split(images, labels), 397, 10, seed=0)
    train, held = hold_out(learn, holdout, 10, seed)
    return Dataset("digits", SMALL["digits"].class_names, train, held, test, mirrors=False)


def cifar10(root: Path | None = None, *, holdout: int = 5000, seed: int = 0) -> Dataset:
    """CIFAR-10's images of 32 x 32 pixels: 50,000 for train and holdout, 10,000 for test.

    `root`: the folder that holds `cifar-10-batches-py` (default: CIFAR10_ROOT in the environment, then a cache folder).
    The data set is downloaded if it is absent. Raises InputError if that fails.
    """
    from torchvision.datasets import CIFAR10

    root = cifar10_folder(root)
    try:
        try:
            learn = as_split(CIFAR10(root, train=True))
        except RuntimeError:  # absent or incomplete
            from pruner.data.download import download_cifar10

            download_cifar10(root)
            learn = as_split(CIFAR10(root, train=True))
        test = as_split(CIFAR10(root, train=False))
    except (URLError, OSError, RuntimeError) as error:
        detail = str(error).splitlines()[0]
        raise InputError(
            f"CIFAR-10: {root} has no complete cifar-10-batches-py and it cannot be downloaded there ({detail}); give "
            "the folder that holds it with --data-root or CIFAR10_ROOT"
        ) from error
    train, held = hold_out(learn, holdout, 10, seed)
    return Dataset("cifar10", SMALL["cifar10"].class_names, train, held, test, mirrors=True)


def cifar10_folder(root: Path | None = None) -> Path:
    """The folder that holds `cifar-10-batches-py`: `root` (or its parent), CIFAR10_ROOT, or a cache folder."""
    root = root or Path(os.environ.get("CIFAR10_ROOT") or CACHE / "cifar10").expanduser()
    return root.parent if (root / "data_batch_1").is_file() else root


def as_split(source: Any) -> Split:
    """One of torchvision's data sets of the same form: its images in memory as (n, h, w, 3), and its labels."""
    images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(source.targets))


def hold_out(split: Split, count: int, classes: int, seed: int) -> tuple[Split, Split]:
    """Split off `count` images in memory as `held_out` says; returns (the rest, those images)."""
    rest, held = held_out(split.labels, count, classes, seed)
    return Split(split.images[rest], split.labels[rest]), Split(split.images[held], split.labels[held])


def held_out(labels: Tensor, count: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Which images to hold out: `count`, stratified by class and determined by the seed.

    Every class that has an image at all has one among the first `classes` that are held out.

    Returns:
        (the rest, those held out), as indices into `labels` in order.

    Raises:
        InputError: There are too few images.
    """
    if not 0 < count < len(labels):
        raise InputError(f"holdout: {count} of {len(labels)} training images cannot be held out")
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    # Interleaving the classes makes any first `count` images proportional, up to one image per class.
    rank = torch.empty_like(shuffled)
    for label in range(classes):
        members = shuffled[labels[shuffled] == label]
        rank[members] = (torch.arange(len(members)) * len(labels)).div(len(members), rounding_mode="floor")
    order = shuffled[rank[shuffled].argsort(stable=True)]
    return order[count:].sort().values, order[:count].sort().values

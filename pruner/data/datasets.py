"""Data sets as uint8 tensors: train, holdout and test. Each is kept in memory once, on the training device."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import torch
from torch import Tensor

from pruner.errors import InputError


@dataclass(frozen=True, slots=True)
class Split:
    """Images and their labels."""

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
        """`count` random images, determined by the seed."""
        chosen = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))[:count]
        chosen = chosen.to(self.images.device)
        return Split(self.images[chosen], self.labels[chosen])

    def to(self, device: torch.device) -> Split:
        """The split moved to a device."""
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
    """Does a mirrored image keep its class?"""

    def to(self, device: torch.device) -> Dataset:
        """The data set moved to a device."""
        moved = {name: getattr(self, name).to(device) for name in ("train", "holdout", "test")}
        return replace(self, **moved)


def load(name: str, root: Path | None = None, *, holdout: int = 0, seed: int = 0) -> Dataset:
    """Load a data set and split its training images into train and holdout.

    Args:
        name: cifar10 or digits.
        root: For cifar10, the folder that holds `cifar-10-batches-py`; see `cifar10`.
        holdout: How many training images to hold out; 0: 5,000 of cifar10, 297 of digits.
        seed: Determines which images are held out.

    Returns:
        The data set, on the CPU.

    Raises:
        InputError: The name is unknown, `holdout` is too large, or CIFAR-10 is absent and cannot be downloaded.
    """
    if name == "digits":
        return digits(holdout=holdout or 297, seed=seed)
    if name == "cifar10":
        return cifar10(root, holdout=holdout or 5000, seed=seed)
    raise InputError(f"data: {name!r} is not one of cifar10, digits")


def digits(*, holdout: int = 297, seed: int = 0) -> Dataset:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels: 1,400 for train and holdout, 397 for test."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    grey = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))
    images = grey[:, None].repeat(1, 3, 1, 1)
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    learn, test = _hold_out(Split(images, labels), 397, 10, seed=0)
    train, held = _hold_out(learn, holdout, 10, seed)
    return Dataset("digits", 10, train, held, test, mirrors=False)


def cifar10(root: Path | None = None, *, holdout: int = 5000, seed: int = 0) -> Dataset:
    """CIFAR-10's images of 32 x 32 pixels: 50,000 for train and holdout, 10,000 for test.

    `root`: the folder that holds `cifar-10-batches-py` (default: CIFAR10_ROOT in the environment, then a cache folder).
    The data set is downloaded if it is absent. Raises InputError if that fails.
    """
    from torchvision.datasets import CIFAR10

    root = cifar10_folder(root)
    try:
        try:
            learn = _as_split(CIFAR10(root, train=True))
        except RuntimeError:  # absent or incomplete
            from pruner.data.download import download_cifar10

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
    """The folder that holds `cifar-10-batches-py`: `root` (or its parent), CIFAR10_ROOT, or a cache folder."""
    root = root or Path(os.environ.get("CIFAR10_ROOT") or "~/.cache/prune-search/cifar10").expanduser()
    return root.parent if (root / "data_batch_1").is_file() else root


def _as_split(source: object) -> Split:
    images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()  # type: ignore[attr-defined]
    return Split(images, torch.tensor(source.targets))  # type: ignore[attr-defined]


def _hold_out(split: Split, count: int, classes: int, seed: int) -> tuple[Split, Split]:
    """Split off `count` images, stratified by class and determined by the seed; returns (the rest, those images)."""
    if not 0 < count < len(split):
        raise InputError(f"holdout: {count} of {len(split)} training images cannot be held out")
    shuffled = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    # Interleaving the classes makes any first `count` images proportional, up to one image per class.
    rank = torch.empty_like(shuffled)
    for label in range(classes):
        members = shuffled[split.labels[shuffled] == label]
        rank[members] = (torch.arange(len(members)) * len(split)).div(len(members), rounding_mode="floor")
    order = shuffled[rank[shuffled].argsort(stable=True)]
    held, rest = order[:count].sort().values, order[count:].sort().values
    return Split(split.images[rest], split.labels[rest]), Split(split.images[held], split.labels[held])

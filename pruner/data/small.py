"""torchvision's other small data sets, where their files are: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from pruner.data.datasets import Dataset, Split, as_split, hold_out
from pruner.data.known import CACHE, SMALL
from pruner.errors import InputError


def small(name: str, root: Path | None, *, holdout: int, seed: int) -> Dataset:
    """Load cifar100, fashion-mnist, stl10 or svhn with torchvision.

    Args:
        name: Which one.
        root: The folder that torchvision keeps the data set in (default: `~/.cache/prune-search/NAME`).
        holdout: How many training images to hold out.
        seed: Determines which.

    Raises:
        InputError: The files are not there, or incomplete.
    """
    from torchvision import datasets

    root = root or (CACHE / name).expanduser()
    try:
        learn, test = _READERS[name](datasets, str(root))
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{name}: {root} has no complete copy of it, as torchvision.datasets keeps it; give the folder that holds "
            f"it with --data-root ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error
    (first, names), (last, _) = learn, test
    train, held = hold_out(first, holdout, len(names), seed)
    return Dataset(name, tuple(names), train, held, last, mirrors=SMALL[name].mirrors)


Read = tuple[Split, list[str]]
"""Images, and the names of their classes."""


def _cifar100(datasets: Any, root: str) -> tuple[Read, Read]:
    found = [datasets.CIFAR100(root, train=train) for train in (True, False)]
    train, test = ((as_split(each), each.classes) for each in found)
    return train, test


def _fashion_mnist(datasets: Any, root: str) -> tuple[Read, Read]:
    found = [datasets.FashionMNIST(root, train=train) for train in (True, False)]
    train, test = ((Split(each.data[:, None].repeat(1, 3, 1, 1), each.targets), each.classes) for each in found)
    return train, test


def _stl10(datasets: Any, root: str) -> tuple[Read, Read]:
    found = [datasets.STL10(root, split=split) for split in ("train", "test")]
    train, test = ((_of_planes(each), each.classes) for each in found)
    return train, test


def _svhn(datasets: Any, root: str) -> tuple[Read, Read]:
    found = [datasets.SVHN(root, split=split) for split in ("train", "test")]
    train, test = ((_of_planes(each), [str(digit) for digit in range(10)]) for each in found)
    return train, test


def _of_planes(source: Any) -> Split:
    """Images that torchvision has as (n, 3, h, w) already."""
    return Split(torch.from_numpy(np.ascontiguousarray(source.data)), torch.from_numpy(source.labels.astype(np.int64)))


_READERS = {"cifar100": _cifar100, "fashion-mnist": _fashion_mnist, "stl10": _stl10, "svhn": _svhn}

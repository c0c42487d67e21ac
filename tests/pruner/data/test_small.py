"""torchvision's other small sets: loaded from the files that torchvision keeps, and only from those."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from pruner.data.known import NAMES, SMALL
from pruner.data.loading import load
from pruner.errors import InputError


def write_idx(path: Path, values: np.ndarray) -> None:
    """MNIST's format: how many dimensions, their sizes, the bytes."""
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    path.write_bytes(header + values.astype(np.uint8).tobytes())


@pytest.fixture
def fashion(tmp_path: Path) -> Path:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 60), ("t10k", 20)):
        numbers = np.arange(count)
        write_idx(raw / f"{part}-images-idx3-ubyte", np.tile(numbers[:, None, None], (1, 28, 28)))
        write_idx(raw / f"{part}-labels-idx1-ubyte", numbers % 10)
    return tmp_path


def test_fashion_mnist_loads_from_torchvisions_files(fashion: Path) -> None:
    data = load("fashion-mnist", fashion, holdout=20)
    assert (len(data.train), len(data.holdout), len(data.test)) == (40, 20, 20)
    assert data.train.images.shape[1:] == (3, 28, 28)
    assert data.train.images.dtype == torch.uint8
    assert data.class_names[9] == "Ankle boot"
    assert torch.bincount(data.holdout.labels).tolist() == [2] * 10
    for split in (data.train, data.holdout, data.test):
        assert torch.equal(split.images[:, 0, 0, 0] % 10, split.labels)
    assert data.mirrors
    assert not load("fashion-mnist", fashion, holdout=20, mirrors=False).mirrors


@pytest.mark.parametrize("name", ["cifar100", "fashion-mnist", "stl10", "svhn"])
def test_a_set_that_is_not_there_is_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--data-root") as caught:
        load(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(InputError) as caught:
        load("imagenet")
    for name in NAMES:
        assert name in str(caught.value)


def test_what_is_known_before_loading_is_so() -> None:
    digits = load("digits")
    assert digits.train.images.shape[-1] == SMALL["digits"].pixels
    assert len(digits.holdout) == SMALL["digits"].holdout
    assert digits.mirrors == SMALL["digits"].mirrors

"""Data: splits that never mix, batches that follow from seed and epoch, and the grader's pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode, Normalize, Resize, ToTensor

from pruner.data.batches import (
    Batch,
    images_per_epoch,
    map_batches,
    prepared,
    resized_as_pil,
    steps_per_epoch,
    train_batches,
)
from pruner.data.datasets import Dataset, Split, cifar10, digits
from pruner.errors import InputError
from pruner.train import Training
from pruner.training.fine_tune import epoch_images


def batches(split: Split, epoch: int, **changes: object) -> list[Batch]:
    options = {"batch_size": 64, "seed": 3, "flip": True, "random_shift": 1, **changes}
    return list(train_batches(split, epoch=epoch, **options))  # type: ignore[arg-type]


def test_digits_are_all_there_and_every_split_has_every_class(data: Dataset) -> None:
    assert (len(data.train), len(data.holdout), len(data.test)) == (1103, 297, 397)
    for split in (data.train, data.holdout, data.test):
        shares = torch.bincount(split.labels, minlength=10) / len(split)
        assert shares.min() > 0.09
        assert shares.max() < 0.11
        assert split.images.dtype == torch.uint8
    assert data.train.images.max() == 255
    assert not data.mirrors  # a mirrored digit is another sign


def test_the_holdout_follows_its_seed_and_the_test_images_never_move(data: Dataset) -> None:
    again, other = digits(), digits(seed=1)
    assert torch.equal(again.holdout.images, data.holdout.images)
    assert not torch.equal(other.holdout.images, data.holdout.images)
    assert torch.equal(other.test.images, data.test.images)
    with pytest.raises(InputError, match="holdout"):
        digits(holdout=5000)


@pytest.mark.parametrize("resolution", [224, 96, 48, 32])
def test_resize_is_pils_bit_for_bit(resolution: int) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator)
    steps = torch.randint(0, 2, (8, 3, 32, 32), dtype=torch.uint8, generator=generator) * 255
    images = torch.cat([noise, steps])
    expected = [Resize((resolution, resolution))(Image.fromarray(i.permute(1, 2, 0).numpy())) for i in images]
    stacked = torch.stack([torch.from_numpy(np.array(i)) for i in expected]).permute(0, 3, 1, 2)
    assert torch.equal(resized_as_pil(images, resolution), stacked)


def test_batches_in_order_are_what_the_graders_transform_makes() -> None:
    noise = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    split = Split(noise, torch.arange(5))
    resize = Resize((224, 224), InterpolationMode.BILINEAR)
    normalize = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in split.images]
    expected = torch.stack([normalize(ToTensor()(resize(picture))) for picture in pictures])
    ((images, labels, _),) = map_batches(lambda *given: given, split, batch_size=8, resolution=224)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
    assert torch.equal(labels, split.labels)


def test_batches_follow_from_seed_and_epoch_alone(data: Dataset) -> None:
    first, again, later = batches(data.train, 0), batches(data.train, 0), batches(data.train, 1)
    assert all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], later[0][0])
    assert len(first) == steps_per_epoch(data.train, batch_size=64) == 1103 // 64
    assert len(batches(data.train, 0, images=128)) == 2
    assert len(batches(data.train, 0, images=40)) == steps_per_epoch(data.train, batch_size=64, images=40) == 1


def test_without_augmentation_an_epoch_is_the_images_shuffled(data: Dataset) -> None:
    split = data.train.first(128)
    found = batches(split, 0, flip=False, random_shift=0)
    mine = torch.cat([prepared(batch.images, 32) for batch in found])
    theirs = torch.cat(list(map_batches(lambda inputs, *_: inputs, split, batch_size=64, resolution=32)))
    assert torch.equal(mine, theirs[torch.cat([batch.which for batch in found])])
    assert not torch.cat([batch.mirrored for batch in found]).any()
    order = [int((theirs == image).flatten(1).all(1).nonzero()[0]) for image in mine]
    rows = {theirs[i].numpy().tobytes() for i in range(128)}
    assert len({theirs[i].numpy().tobytes() for i in order}) == len(rows)
    assert order != sorted(order)


def test_shifts_and_mirrors_move_whole_images() -> None:
    ramp = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8).repeat(256, 3, 1, 1)
    split = Split(ramp, torch.zeros(256, dtype=torch.int64))
    options = {"batch_size": 256, "seed": 0, "epoch": 0}
    ((images, *_),) = train_batches(split, flip=True, random_shift=2, **options)
    variants = {image.contiguous().numpy().tobytes() for image in images}
    assert len(variants) == 2 * 5 * 5
    ((mirrored, *_),) = train_batches(split, flip=True, random_shift=0, **options)
    ((plain, *_),) = train_batches(split, flip=False, random_shift=0, **options)
    flipped = torch.stack([a if torch.equal(a, b) else a.flip(-1) for a, b in zip(mirrored, plain, strict=True)])
    assert torch.equal(flipped, plain)
    assert 64 < sum(torch.equal(a, b) for a, b in zip(mirrored, plain, strict=True)) < 192


def test_a_folder_without_cifar10_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there: no network
    with pytest.raises(InputError, match="--data-root") as caught:
        cifar10(tmp_path / "wrong")
    assert str(tmp_path / "wrong") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_real_cifar10_has_a_stratified_holdout(course_files: tuple[Path, Path]) -> None:
    root, _ = course_files
    data = cifar10(root)
    assert (len(data.train), len(data.holdout), len(data.test)) == (45_000, 5_000, 10_000)
    assert torch.bincount(data.holdout.labels).tolist() == [500] * 10
    assert torch.equal(cifar10(root / "cifar-10-batches-py").holdout.images, data.holdout.images)


@given(st.integers(1, 200), st.integers(2, 80), st.integers(0, 250).filter(lambda images: images != 1))
def test_an_epoch_has_as_many_batches_and_images_as_are_counted(size: int, batch: int, images: int) -> None:
    split = Split(torch.zeros(size, 3, 8, 8, dtype=torch.uint8), torch.zeros(size, dtype=torch.int64))
    found = list(train_batches(split, batch_size=batch, seed=0, epoch=0, images=images, flip=False, random_shift=0))
    assert len(found) == steps_per_epoch(split, batch_size=batch, images=images)
    assert sum(len(one.labels) for one in found) == images_per_epoch(split, batch_size=batch, images=images)
    tune = Training(epochs=2, batch_size=batch, images_per_epoch=images)
    assert epoch_images(split, tune) == [sum(len(one.labels) for one in found)] * 2

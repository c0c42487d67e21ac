"""A folder of images: what it may hold, how it is divided, and that every image is decoded once, whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pictures import write_images, write_split
from pruner.data.batches import map_batches, train_batches
from pruner.data.datasets import Dataset, Split, as_split, hold_out
from pruner.data.decoding import decode
from pruner.data.folder import Folder
from pruner.data.listing import Listing, list_images
from pruner.data.loading import load, open_folder
from pruner.data.mapped import Mapped
from pruner.errors import InputError

ANIMALS = {"ant": 20, "bee": 40, "cat": 60}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "photos"


def opened(root: Path, **how: int) -> Folder:
    return open_folder(root, cache=root.parent / "cache", **{"resolution": 16, **how})


def decoded(root: Path) -> list[Path]:
    """All files that were written for a folder."""
    return sorted(path for path in (root.parent / "cache").rglob("*") if path.is_file())


def count(files: tuple, listing: Listing) -> dict[str, int]:
    return dict(Counter(listing.class_names[file.label] for file in files))


# What it holds, and how it is divided


def test_classes_alone_are_divided_in_proportion(root: Path) -> None:
    write_images(root, ANIMALS)
    listing = list_images(root)
    assert listing.class_names == ("ant", "bee", "cat")
    assert count(listing.test, listing) == {"ant": 2, "bee": 4, "cat": 6}
    assert count(listing.holdout, listing) == pytest.approx({"ant": 2, "bee": 4, "cat": 5}, abs=1)
    assert sorted(listing.files) == sorted({*listing.train, *listing.holdout, *listing.test})
    assert len(listing.files) == 120


def test_the_seed_draws_the_holdout_and_never_the_test_images(root: Path) -> None:
    write_images(root, ANIMALS)
    first, again, other = list_images(root), list_images(root), list_images(root, seed=1)
    assert (first.train, first.holdout) == (again.train, again.holdout)
    assert first.holdout != other.holdout
    assert first.test == other.test


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_parts_that_are_there_are_taken_as_they_are(root: Path, name: str) -> None:
    write_images(root / "train", ANIMALS)
    write_images(root / name, {"ant": 1, "bee": 2, "cat": 3})
    write_images(root / "test", {"ant": 3, "bee": 2, "cat": 1})
    listing = list_images(root, seed=5)
    assert (len(listing.train), len(listing.holdout), len(listing.test)) == (120, 6, 6)
    assert listing.notes == ()
    assert listing == list_images(root, seed=6)


def test_without_test_images_val_is_graded_on_and_said_so(root: Path) -> None:
    write_images(root / "train", ANIMALS)
    write_images(root / "val", {"ant": 1, "bee": 2, "cat": 3})
    data = opened(root).load()
    assert data.graded_on == "val"
    assert data.test.images.data_ptr() == data.holdout.images.data_ptr() or torch.equal(
        data.test.images, data.holdout.images
    )
    assert len([path for path in decoded(root) if path.suffix == ".npy"]) == 2
    (note,) = data.notes
    assert "graded on val" in note


def test_train_alone_is_divided_like_classes_alone(root: Path, tmp_path: Path) -> None:
    write_images(root / "train", ANIMALS)
    write_images(tmp_path / "flat", ANIMALS)
    inside, flat = list_images(root), list_images(tmp_path / "flat")
    for part in ("train", "holdout", "test"):
        names = [Path(file.name).name for file in getattr(inside, part)]
        assert names == [Path(file.name).name for file in getattr(flat, part)]


def test_a_class_may_be_called_train(root: Path) -> None:
    write_images(root, {"bus": 10, "train": 10})
    assert list_images(root).class_names == ("bus", "train")


def test_images_are_in_the_order_of_their_names_across_classes(root: Path) -> None:
    for number, name in enumerate(["bee", "ant", "bee", "cat", "ant", "cat", "bee", "ant", "cat", "ant", "bee", "cat"]):
        (root / "train" / name).mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(root / "train" / name / f"{number}.png")
    write_images(root / "test", {"ant": 1, "bee": 1, "cat": 1})
    write_images(root / "val", {"ant": 1, "bee": 1, "cat": 1})
    assert [int(Path(file.name).stem) for file in list_images(root).train] == list(range(12))


@given(st.lists(st.integers(3, 30), min_size=2, max_size=6), st.integers(0, 3))
def test_every_class_is_in_every_part(tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int) -> None:
    root = tmp_path_factory.mktemp("sizes")
    for label, size in enumerate(sizes):
        (root / f"class{label}").mkdir()
        for number in range(size):
            (root / f"class{label}" / f"{label}-{number}.png").touch()
    listing = list_images(root, seed=seed)
    for part in (listing.train, listing.holdout, listing.test):
        assert {file.label for file in part} == set(range(len(sizes)))
    assert len(listing.files) == sum(sizes) == len(set(listing.files))


# Bad folders: one line each, and nothing written


def refused(root: Path, *words: str, **how: int) -> None:
    with pytest.raises(InputError) as caught:
        opened(root, **how).load()
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line
    assert decoded(root) == []


def test_what_is_no_data_set_is_refused_in_a_line(root: Path) -> None:
    refused(root, str(root), "no such folder")
    root.mkdir()
    refused(root, "no folder for each class")
    write_images(root, {"ant": 9})
    refused(root, "one class only, 'ant'")
    write_images(root, {"bee": 2})
    refused(root, str(root / "bee"), "has 2 images", "needs 3")
    (root / "bee" / "bee-0.png").rename(root / "bee" / "bee-0.txt")
    refused(root, "has 1 images")
    file = root.parent / "archive.zip"
    file.touch()
    with pytest.raises(InputError, match="is a file"):
        list_images(file)


def test_parts_must_have_the_same_classes(root: Path) -> None:
    write_images(root / "train", ANIMALS)
    write_images(root / "test", {"ant": 2, "bee": 2})
    refused(root, str(root / "test"), "lacks the class 'cat'")
    write_images(root / "test", {"cat": 2, "dog": 1})
    refused(root, str(root / "test"), "has the class 'dog'")
    (root / "test" / "dog" / "dog-0.png").unlink()
    (root / "test" / "dog").rmdir()
    write_images(root / "val", {"ant": 1, "bee": 1})
    refused(root, str(root / "val"), "lacks the class 'cat'")
    (root / "val" / "cat").mkdir()
    refused(root, str(root / "val" / "cat"), "has 0 images")
    write_images(root / "val", {"cat": 1})
    assert len(list_images(root).holdout) == 3
    refused(root, "holdout", "leave it out", holdout=5)
    write_images(root / "valid", {"ant": 1})
    refused(root, "both val and valid")


def test_a_holdout_leaves_something_to_train_on(root: Path) -> None:
    write_images(root, {"ant": 5, "bee": 5})
    refused(root, "holdout", "8", holdout=8)
    refused(root, "holdout", "no training image", holdout=7)


# Decoding


def picture(mode: str, size: tuple[int, int] = (24, 16)) -> Image.Image:
    """A picture of that mode, dark on the left, bright on the right."""
    width, height = size
    ramp = np.tile(np.linspace(40, 200, width).astype(np.uint8), (height, 1))
    return Image.fromarray(ramp).convert("RGB").convert(mode, palette=Image.Palette.ADAPTIVE)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / f"a.{'tif' if mode in ('CMYK', 'I') else 'png'}"
    picture(mode).save(path)
    pixels = decode(path, 16)
    assert (pixels.shape, pixels.dtype) == ((3, 16, 16), np.uint8)
    expected = np.asarray(picture("RGB").crop((4, 0, 20, 16))).transpose(2, 0, 1)
    if mode != "1":
        assert np.abs(pixels.astype(int) - expected).max() <= 2


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    grey = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png", 8)[1], np.rint(grey / 257))


def test_white_shines_through_what_is_transparent(tmp_path: Path) -> None:
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4, :, 3] = 255
    Image.fromarray(clear).save(tmp_path / "a.png")
    pixels = decode(tmp_path / "a.png", 8)
    assert (pixels[:, :4] == 0).all()
    assert (pixels[:, 4:] == 255).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path: Path, suffix: str, orientation: int) -> None:
    stored = np.zeros((16, 16), np.uint8)
    stored[:8, :8] = 255  # as stored, the corner at the top left is bright
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).convert("RGB").save(tmp_path / f"a.{suffix}", exif=exif)
    upright = decode(tmp_path / f"a.{suffix}", 16)[0]
    corner = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (0, 1), 7: (1, 1), 8: (1, 0)}[orientation]
    bright = {(row, column) for row in (0, 1) for column in (0, 1) if upright[4 + 8 * row, 4 + 8 * column] > 127}
    assert bright == {corner}


def test_a_large_image_gives_its_centre_at_the_resolution(tmp_path: Path) -> None:
    large = picture("RGB", (400, 300))
    large.save(tmp_path / "a.png")
    whole = np.asarray(large.crop((50, 0, 350, 300)).resize((32, 32), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.abs(decode(tmp_path / "a.png", 32).astype(int) - whole).max() <= 1
    large.save(tmp_path / "a.jpg", quality=98)
    assert np.abs(decode(tmp_path / "a.jpg", 32).astype(int) - whole).max() <= 6


@pytest.mark.parametrize(
    ("sizes", "side"),
    [([(12, 12)] * 3, 12), ([(12, 9), (10, 14), (11, 9)], 10), ([(12, 12), (40, 60), (9, 9)], 16)],
)
def test_images_are_never_stored_larger_than_the_largest_of_them(
    root: Path, sizes: list[tuple[int, int]], side: int
) -> None:
    for number, size in enumerate(sizes):
        write_images(root, {f"ant{number}": 3, f"bee{number}": 3}, size)
    assert opened(root).load().train.images.shape[1:] == (3, side, side)


# One file, written once


def test_splits_are_the_mapped_files_and_hold_what_was_written(root: Path) -> None:
    write_images(root, ANIMALS, (8, 8))
    folder = opened(root)
    assert folder.to_decode() == 120
    seen: list[int] = []
    data = folder.load(on_images=seen.append)
    assert sum(seen) == 120
    assert folder.to_decode() == 0
    assert (data.name, data.class_names, data.classes, data.mirrors) == ("photos", ("ant", "bee", "cat"), 3, True)
    for name, split in (("train", data.train), ("holdout", data.holdout), ("test", data.test)):
        files = getattr(folder.listing, name)
        numbers = [int(Path(file.name).stem.partition("-")[2]) for file in files]
        assert split.images[:, 1, 4, 4].tolist() == numbers
        assert split.images[:, 0, 0, 0].tolist() == split.labels.tolist() == [file.label for file in files]
        assert split.mapped is not None
    assert folder.load(on_images=lambda _: pytest.fail("decoded twice")).fingerprint == data.fingerprint


def test_only_the_parts_that_are_needed_are_decoded(root: Path) -> None:
    write_images(root, ANIMALS)
    data = opened(root).load(parts=["test"])
    assert (len(data.test), len(data.train)) == (12, 0)
    assert opened(root).to_decode() == 108


KILLED = """
import os, signal, sys
from pathlib import Path
from pruner.data.loading import open_folder
left = int(sys.argv[2])
def told(count):
    global left
    left -= count
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
open_folder(sys.argv[1], cache=Path(sys.argv[1]).parent / "cache", resolution=16).load(on_images=told)
"""


def test_a_killed_decoding_goes_on_and_decodes_nothing_twice(root: Path) -> None:
    write_images(root, ANIMALS, (8, 8))
    write_images(root.parent / "other", ANIMALS, (8, 8))
    expected = opened(root.parent / "other").load()
    done = subprocess.run([sys.executable, "-c", KILLED, str(root), "50"])
    assert done.returncode < 0
    folder = opened(root)
    for file in folder.listing.train[:50]:  # whoever read them again would find no images
        path = root / file.name
        path.write_bytes(bytes(file.size))
        os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
    seen: list[int] = []
    data = folder.load(on_images=seen.append)
    assert seen[0] == 50
    assert sum(seen) == 120
    assert torch.equal(data.train.images, expected.train.images)
    assert data.fingerprint == expected.fingerprint
    assert not [path for path in decoded(root) if path.suffix == ".partial"]


def test_a_changed_folder_is_decoded_anew_and_is_another_data_set(root: Path) -> None:
    write_images(root, ANIMALS, (8, 8))
    first = opened(root).load()
    written = decoded(root)
    path = root / "ant" / "ant-3.png"
    os.utime(path, ns=(1, 1))
    assert opened(root).to_decode() == 120  # who knows what is in it now
    assert opened(root).load().fingerprint == first.fingerprint  # the same
    assert len(decoded(root)) == len(written)
    assert not set(decoded(root)) & set(written)
    Image.new("RGB", (8, 8), "red").save(path)
    changed = opened(root).load()
    path.unlink()
    fewer = opened(root).load()
    assert len({data.fingerprint for data in (first, changed, fewer)}) == 3
    assert len({data.key for data in (first, changed, fewer)}) == 3


def test_folders_of_equal_images_are_one_data_set(root: Path, tmp_path: Path) -> None:
    write_images(root, ANIMALS)
    write_images(tmp_path / "copy", ANIMALS)
    assert opened(root).load().fingerprint == opened(tmp_path / "copy").load().fingerprint
    assert opened(root).load().fingerprint != opened(root, seed=1).load().fingerprint


def test_a_damaged_decoded_file_is_named(root: Path) -> None:
    write_images(root, ANIMALS)
    opened(root).load()
    path = next(path for path in decoded(root) if path.suffix == ".npy")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="damaged; delete it") as caught:
        opened(root).load()
    assert str(path) in str(caught.value)


# Unreadable files


def test_few_unreadable_files_are_named_and_left_out(root: Path) -> None:
    write_images(root, {"ant": 100, "bee": 100}, (8, 8))
    bad = [root / "ant" / "ant-7.png", root / "bee" / "bee-11.png"]
    bad[0].write_bytes(bad[0].read_bytes()[:45])
    bad[1].write_text("not an image")
    data = opened(root).load()
    (*_, note) = data.notes
    assert "2 of 200 images cannot be read" in note
    for path in bad:
        assert f"{path.parent.name}/{path.name}" in note
    assert len(data.train) + len(data.holdout) + len(data.test) == 198
    for split in (data.train, data.holdout, data.test):
        assert split.images[:, 0, 0, 0].tolist() == split.labels.tolist()
    assert opened(root).load().notes == data.notes


def test_many_unreadable_files_are_an_error_that_names_them(root: Path) -> None:
    write_images(root, {"ant": 100, "bee": 100}, (8, 8))
    for number in (1, 2, 3):
        (root / "ant" / f"ant-{number}.png").write_text("not an image")
    with pytest.raises(InputError, match="more than 1% of its images cannot be read") as caught:
        opened(root).load()
    assert "\n" not in str(caught.value)
    assert "ant/ant-" in str(caught.value)
    assert not [path for path in decoded(root) if path.suffix == ".partial"]


def test_a_killed_decoding_goes_on_behind_an_unreadable_file(root: Path) -> None:
    write_images(root, {"ant": 100, "bee": 100}, (8, 8))
    listing = list_images(root)
    (root / listing.train[3].name).write_text("not an image")
    done = subprocess.run([sys.executable, "-c", KILLED, str(root), "20"])
    assert done.returncode < 0
    data = opened(root).load()
    assert len(data.train) == len(listing.train) - 1
    assert data.train.images[:, 0, 0, 0].tolist() == data.train.labels.tolist()
    assert listing.train[3].name in data.notes[-1]


def test_other_files_are_left_out_and_said_so(root: Path) -> None:
    write_images(root, ANIMALS)
    (root / "ant" / "readme.txt").write_text("ants")
    (root / "ant" / ".DS_Store").touch()
    (root / ".git").mkdir()
    listing = list_images(root)
    assert len(listing.files) == 120
    assert "readme.txt" in listing.notes[0]
    assert ".DS_Store" not in listing.notes[0]


# The same as in memory


def same(one: Split, other: Split) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)


def written(root: Path, learn: Split, test: Split, names: tuple[str, ...]) -> Dataset:
    write_split(root / "train", learn, names)
    write_split(root / "test", test, names)
    return load("folder", root, seed=3, cache=root.parent / "cache")


def test_a_data_set_written_as_pngs_has_the_same_splits_and_batches(data: Dataset, root: Path) -> None:
    learn = Split(torch.cat([data.train.images[:350], data.holdout.images[:50]]),
                  torch.cat([data.train.labels[:350], data.holdout.labels[:50]]))  # fmt: skip
    found = written(root, learn, data.test.first(100), data.class_names)
    train, held = hold_out(learn, 40, 10, seed=3)
    assert same(found.train, train)
    assert same(found.holdout, held)
    assert same(found.test, data.test.first(100))
    assert same(found.train.drawn(50, 1), train.drawn(50, 1))
    assert same(found.train.first(50), train.first(50))
    how = {"batch_size": 64, "seed": 0, "epoch": 1, "flip": True, "random_shift": 2}
    for one, other in zip(train_batches(found.train, **how), train_batches(train, **how), strict=True):
        assert torch.equal(one.images, other.images)
    one, other = (
        torch.cat(list(map_batches(lambda inputs, *_: inputs, split, batch_size=32, resolution=48)))
        for split in (found.test, data.test.first(100))
    )
    assert torch.equal(one, other)


def test_real_cifar10_written_as_pngs_has_the_same_splits(course_files: tuple[Path, Path], root: Path) -> None:
    from torchvision.datasets import CIFAR10

    learn, test = (as_split(CIFAR10(course_files[0], train=train)).first(600) for train in (True, False))
    names = tuple(CIFAR10(course_files[0], train=False).classes)
    found = written(root, learn, test, names)
    train, held = hold_out(learn, 60, 10, seed=3)
    assert found.train.images.shape == (540, 3, 32, 32)
    assert same(found.train, train)
    assert same(found.holdout, held)
    assert same(found.test, test)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux, to ask for mapped memory")
def test_a_mapped_split_gives_its_memory_back(tmp_path: Path) -> None:
    path, images = tmp_path / "a.npy", 6144
    with path.open("wb") as file:
        shape = (images, 3, 128, 128)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + images * 3 * 128 * 128)  # 288 MiB that take no disk

    def mapped_mib() -> int:
        fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["RssFile"].split()[0]) // 1024

    mapped = Mapped(path)
    split, before, most = Split(mapped.array, torch.zeros(images, dtype=torch.int64), mapped), mapped_mib(), 0
    for start in range(0, 2 * images, 256):  # each is read twice
        assert split.images[start % images :][:256].amax() == 0
        split.was_read(256)
        most = max(most, mapped_mib() - before)
    assert most < 270
    assert mapped_mib() - before < 100

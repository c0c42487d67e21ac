"""Image files of every kind become what the grader would see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from pruner.data.batches import resized_as_pil
from pruner.data.decoding import read_image
from pruner.errors import InputError


@pytest.fixture
def picture() -> Image.Image:
    """Smooth enough that a JPEG is close, and different in every corner."""
    rows, columns = np.mgrid[0:32, 0:32] * 7
    return Image.fromarray(np.stack([rows, columns, 255 - rows], axis=2).astype(np.uint8))


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one.int() - other.int()).abs().float().mean() < 4)


@pytest.mark.parametrize("resolution", [32, 64, 224])
def test_a_square_image_is_resized_exactly_as_the_grader_does(
    picture: Image.Image, resolution: int, tmp_path: Path
) -> None:
    picture.save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png", resolution)
    by_grader = v2.functional.pil_to_tensor(v2.Resize((resolution, resolution))(picture))
    assert (found.dtype, tuple(found.shape)) == (torch.uint8, (3, resolution, resolution))
    assert torch.equal(found, by_grader)
    images = v2.functional.pil_to_tensor(picture)[None]
    assert torch.equal(found, resized_as_pil(images, resolution)[0])


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("L", "png"), ("P", "gif"), ("RGBA", "png"), ("LA", "png"), ("1", "png"), ("CMYK", "jpg"), ("I;16", "png"),
        ("RGB", "webp"), ("YCbCr", "jpg"),
    ],
)  # fmt: skip
def test_images_of_any_mode(picture: Image.Image, mode: str, suffix: str, tmp_path: Path) -> None:
    path, wanted = tmp_path / f"a.{suffix}", picture
    if mode == "I;16":
        Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257).save(path)
    else:
        picture.convert(mode).save(path)
    if mode in ("L", "LA", "I;16", "1", "P"):
        wanted = picture.convert(mode if mode in ("1", "P") else "L").convert("RGB")
    assert near(read_image(path, 32), v2.functional.pil_to_tensor(wanted))


def test_what_is_transparent_becomes_white(picture: Image.Image, tmp_path: Path) -> None:
    clear = picture.convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png", 32).eq(255).all()
    picture.convert("P").save(tmp_path / "b.png", transparency=bytes(256))
    assert read_image(tmp_path / "b.png", 32).eq(255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_data_says(picture: Image.Image, orientation: int, tmp_path: Path) -> None:
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # the transposition that a camera undoes
    stored = picture if back is None else picture.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_image(tmp_path / "a.png", 32), v2.functional.pil_to_tensor(picture))


@pytest.mark.parametrize("size", [(96, 32), (32, 96), (97, 32)])
def test_the_middle_of_the_long_side_is_kept(picture: Image.Image, size: tuple[int, int], tmp_path: Path) -> None:
    wide = Image.new("RGB", size, "red")
    wide.paste(picture, ((size[0] - 32) // 2, (size[1] - 32) // 2))
    wide.save(tmp_path / "a.png")
    assert near(read_image(tmp_path / "a.png", 32), v2.functional.pil_to_tensor(picture))


def test_extreme_shapes_cost_no_memory(tmp_path: Path) -> None:
    for size in ((1, 60_000), (60_000, 1), (1, 1)):
        Image.new("RGB", size, "blue").save(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png", 2048)[2].eq(255).all()


def test_what_is_no_image_is_said_in_a_line(picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    Image.new("F", (4, 4)).save(tmp_path / "float.tif")
    Image.new("1", (19_000, 10_000)).save(tmp_path / "huge.png")
    files = {"text.png": b"my notes", "empty.jpg": b"", "half.png": whole[: len(whole) // 2], "head.png": whole[:20]}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    reasons = {"float.tif": "floating-point", "huge.png": "more pixels", "none.png": "No such file"}
    for name in (*files, *reasons):
        with pytest.raises(InputError, match=reasons.get(name, "not an image|damaged")) as caught:
            read_image(tmp_path / name, 32)
        assert str(tmp_path / name) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="Is a directory"):
        read_image(tmp_path, 32)

"""One image file -> uint8 pixels of a square."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from pruner.errors import InputError

_FINER = 2
"""A JPEG is decoded at the smallest of its scales with so many times the pixels a side that are wanted."""


def decode(path: Path, side: int) -> NDArray[np.uint8]:
    """Read an image: turned upright by its EXIF data, its central square resized bilinearly as PIL does.

    Grey images and palettes become RGB, 16 bits become 8, and white shines through what is transparent. Of an animation
    it is the first frame.

    Args:
        path: The file, in any format of PIL's.
        side: Pixels a side. A square image of that size stays as it is.

    Returns:
        Pixels of shape (3, side, side).

    Raises:
        Exception: Of nearly any kind, if the file is damaged or no image; `read_image` says it in a line.
    """
    with Image.open(path) as image:
        image.draft("RGB", (_FINER * side, _FINER * side))
        image.load()  # a TIFF turns itself here
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode == "F":
            raise InputError(f"{path}: has floating-point pixels; save it with 8 or 16 bits a colour")
        upright = _rgb(image)
    short = min(upright.size)
    left, top = ((length - short) // 2 for length in upright.size)
    square = upright.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short))
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def read_image(path: Path, resolution: int) -> Tensor:
    """Read one image as `decode` does: uint8 (3, resolution, resolution).

    Raises:
        InputError: It is no image that can be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return torch.from_numpy(decode(path, resolution))
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path}: is not an image that can be read; give a PNG, JPEG, WebP ...") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"{path}: has more pixels than are read here ({Image.MAX_IMAGE_PIXELS:,})") from None
    except OSError as error:
        reason = error.strerror or "truncated or damaged"
        raise InputError(f"{path}: cannot be read ({reason})") from error
    except Exception as error:  # PIL's readers raise nearly anything
        raise InputError(f"{path}: cannot be read (damaged)") from error


def short_side(path: Path) -> int | None:
    """The pixels of an image's shorter side, from the file's header; None if that cannot be read."""
    try:
        with Image.open(path) as image:
            return min(image.size)
    except Exception:  # a damaged file can raise nearly anything; `decode` names it
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits of grey, which `convert` would cut off at 255
        values = np.asarray(image, np.float32)
        grey = values / 257 if image.mode != "I" or values.max() > 255 else values
        return Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    white = Image.new("RGBA", clear.size, "white")
    return Image.alpha_composite(white, clear).convert("RGB")

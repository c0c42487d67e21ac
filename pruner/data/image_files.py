"""Image files of any kind, prepared as test images are: upright, RGB, resized as the grader does."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from pruner.errors import InputError

_16_BITS = ("I", "I;16", "I;16L", "I;16B", "I;16N")
"""PIL's modes of grey images with 16 bits a pixel; some of its readers give them as 32-bit integers."""


def read_image(path: Path, resolution: int) -> Tensor:
    """Read an image file as uint8 (3, resolution, resolution).

    The image is turned as its EXIF data says, and what is transparent becomes white. Its short side is resized to the
    resolution, bilinearly by PIL, and the middle of the long side is kept: a square image is resized exactly as the
    course's grader does. Of an animation, the first frame counts.

    Raises InputError if it is no image that can be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                upright = ImageOps.exif_transpose(opened)
    except UnidentifiedImageError:
        raise InputError(f"{path}: is not an image that can be read; give a PNG, JPEG, WebP ...") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(f"{path}: has more pixels than are read here ({Image.MAX_IMAGE_PIXELS:,})") from None
    except OSError as error:
        reason = error.strerror or "truncated or damaged"
        raise InputError(f"{path}: cannot be read ({reason})") from error
    except (ValueError, SyntaxError, ArithmeticError, LookupError, EOFError) as error:  # as PIL's readers raise them
        raise InputError(f"{path}: cannot be read (damaged)") from error
    if upright.mode == "F":
        raise InputError(f"{path}: has floating-point pixels; save it with 8 or 16 bits a colour")
    image = _rgb(upright)
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    # Cropping and resizing at once: an image of 1 x 10,000 pixels would otherwise be enlarged to gigabytes.
    square = image.resize((resolution, resolution), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in _16_BITS:
        values = np.asarray(image).astype(np.int64)
        return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")

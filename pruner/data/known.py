"""The data sets by name, and what is known of them before any of their files is read. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CACHE = Path("~/.cache/prune-search")
"""Where data sets are kept that belong to no folder of runs; `~` is not expanded yet."""
FOLDER = "folder"
"""The name under which a folder of images is a data set; see `pruner.data.listing` for what it holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A data set of small images that is kept in memory whole."""

    pixels: int
    """The side of its images."""
    holdout: int
    """How many of its training images are held out, unless told otherwise."""
    mirrors: bool
    """Does a mirrored image keep its class?"""
    classes: int = 10
    class_names: tuple[str, ...] = ()
    """Where they are known before the files are read."""


SMALL = {
    "cifar10": Known(
        pixels=32, holdout=5000, mirrors=True,
        class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": Known(pixels=32, holdout=5000, mirrors=True, classes=100),
    "digits": Known(pixels=8, holdout=297, mirrors=False, class_names=tuple("0123456789")),
    "fashion-mnist": Known(pixels=28, holdout=6000, mirrors=True),
    "stl10": Known(pixels=96, holdout=500, mirrors=True),
    "svhn": Known(pixels=32, holdout=7325, mirrors=False),
}  # fmt: skip
"""A tenth of the training images is held out, of digits a little more: it has few."""
NAMES = (*SMALL, FOLDER)

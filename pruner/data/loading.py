"""Load any data set by name: the one place that knows which module makes which."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pruner.data.datasets import Dataset, cifar10, digits
from pruner.data.folder import Folder
from pruner.data.known import CACHE, FOLDER, NAMES, SMALL
from pruner.data.listing import list_images
from pruner.data.small import small
from pruner.errors import InputError


def load(
    name: str,
    root: Path | str | None = None,
    *,
    holdout: int = 0,
    seed: int = 0,
    mirrors: bool | None = None,
    resolution: int = 224,
    cache: Path | None = None,
) -> Dataset:
    """Load a data set and split its training images into train and holdout.

    Args:
        name: cifar10, cifar100, digits, fashion-mnist, stl10, svhn, or folder.
        root: The folder that holds it: of images (`pruner.data.listing` says how they are laid out), `cifar-10-
            batches-py` (see `cifar10`), or what torchvision keeps of the others. Digits need none.
        holdout: How many training images to hold out; 0: the usual number, see `pruner.data.known`.
        seed: Determines which images are held out.
        mirrors: Does a mirrored image keep its class? None: as is usual for the data set; those of a folder do.
        resolution: Of a folder's images: pixels a side at which they are stored.
        cache: Of a folder's images: where the decoded ones are kept (default: a cache folder).

    Returns:
        The data set, on the CPU.

    Raises:
        InputError: The name is unknown, `holdout` is too large, or the files are not there or cannot be used.
    """
    if name == FOLDER:
        return open_folder(root, holdout=holdout, seed=seed, resolution=resolution, cache=cache).load(
            mirrors=mirrors is not False
        )
    if name not in SMALL:
        raise InputError(f"data: {name!r} is not one of {', '.join(NAMES)}")
    root, holdout = Path(root) if root else None, holdout or SMALL[name].holdout
    if name == "digits":
        found = digits(holdout=holdout, seed=seed)
    elif name == "cifar10":
        found = cifar10(root, holdout=holdout, seed=seed)
    else:
        found = small(name, root, holdout=holdout, seed=seed)
    return found if mirrors is None else replace(found, mirrors=mirrors)


def open_folder(
    root: Path | str | None, *, holdout: int = 0, seed: int = 0, resolution: int = 224, cache: Path | None = None
) -> Folder:
    """List a folder of images; its `load` decodes them. Arguments and errors are those of `load`."""
    if root is None:
        raise InputError("data: folder needs the folder that holds the images, as root or --data-root")
    place = cache or (CACHE / "data").expanduser()
    return Folder(list_images(Path(root), holdout=holdout, seed=seed), place, resolution)

"""Download data sets."""

from __future__ import annotations

import tempfile
from pathlib import Path

from torchvision.datasets import CIFAR10


def download_cifar10(root: Path) -> None:
    """Download CIFAR-10 with torchvision into `root/cifar-10-batches-py`; `root` is created if necessary.

    The files go into a temporary neighbour first, so a failure leaves nothing behind. Several processes may download at
    once; each puts the same files in place.

    Raises OSError (URLError if there is no connection), and RuntimeError if files arrive damaged.
    """
    if root.exists() and not root.is_dir():
        raise NotADirectoryError(f"{root} is a file")
    if (root / CIFAR10.filename).exists():
        CIFAR10(root, download=True)  # unpacks it
        return
    nearest = next(folder for folder in (root, *root.absolute().parents) if folder.is_dir())
    with tempfile.TemporaryDirectory(prefix=".cifar10-", dir=nearest) as neighbour:
        CIFAR10(neighbour, download=True)
        into = root / CIFAR10.base_folder
        into.mkdir(parents=True, exist_ok=True)
        for path in (Path(neighbour) / CIFAR10.base_folder).iterdir():
            path.replace(into / path.name)

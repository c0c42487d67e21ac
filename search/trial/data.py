"""Open a data set for a study or a command; a folder's images are decoded first, once, by one process."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch

from pruner.data.datasets import Dataset
from pruner.data.folder import PARTS, Folder
from pruner.data.known import FOLDER, SMALL
from pruner.data.loading import load, open_folder
from pruner.errors import InputError
from search.filesystem import locked
from search.options import Options
from search.storage.folder import StudyFolder
from search.study.spec import StudySpec
from search.terminal.progress import Progress


def open_data(
    spec: StudySpec, folder: StudyFolder, options: Options, device: torch.device, progress: Progress,
    loaded: Dataset | None = None,
) -> Dataset:  # fmt: skip
    """The study's data set, on the device. The options' root takes precedence over the study file's.

    `loaded`: what another study with the same data set (`has_same_data`) has loaded.

    Raises InputError if there is none, or it cannot be used.
    """
    how, root = spec.data, data_root(spec, options)
    if loaded is not None:
        data = loaded
    elif how.name == FOLDER:
        found = open_folder(
            root, holdout=how.holdout, seed=spec.seed, resolution=how.resolution, cache=folder.data.absolute()
        )
        data = _decoded(found, PARTS, how.mirrors is not False, options.threads, progress)
    else:
        data = load(how.name, root, holdout=how.holdout, seed=spec.seed, mirrors=how.mirrors)
    side = data.train.images.shape[-1]
    for section, settings in (("train", spec.train), ("dense", spec.dense)):
        if settings.random_shift >= side:
            raise InputError(f"{section}.random_shift: {settings.random_shift} is not below {side}, the images' side")
    return data.to(device)


def has_same_data(spec: StudySpec, other: StudySpec) -> bool:
    """Do the two studies name the same data set, and split it in the same way?"""
    return (spec.data, spec.seed) == (other.data, other.seed)


def data_root(spec: StudySpec, options: Options) -> Path | None:
    """The folder that holds the study's data set, if it is named."""
    return options.data_root or (Path(spec.data.root).expanduser() if spec.data.root else None)


def open_named(
    name: str,
    root: Path | None,
    device: torch.device,
    progress: Progress,
    *,
    resolution: int,
    threads: int,
    parts: Collection[str] = PARTS,
    cache: Path | None = None,
) -> Dataset:
    """The data set that a command names, or the folder of images `name`, on the device. Its notes are shown.

    Of a folder, only `parts` are decoded, into `cache` (default: a cache folder of the user's).

    Raises InputError if it cannot be used.
    """
    if name in SMALL:
        data = load(name, root)
    else:
        found = open_folder(root if name == FOLDER else name, resolution=resolution, cache=cache)
        data = _decoded(found, parts, True, threads, progress)
    tell_notes(data, progress)
    return data.to(device)


def tell_notes(data: Dataset, progress: Progress) -> None:
    """Show what the user should know of a data set."""
    for note in data.notes:
        progress.line(f"Note: {note}.")


def _decoded(folder: Folder, parts: Collection[str], mirrors: bool, threads: int, progress: Progress) -> Dataset:
    """The data set in a folder. If another process is decoding it, this one waits."""
    if not folder.to_decode(parts):
        return folder.load(parts=parts, mirrors=mirrors)
    with locked(folder.cache / "lock"):
        if not (left := folder.to_decode(parts)):
            return folder.load(parts=parts, mirrors=mirrors)
        with progress.task("decoding images", left) as bar:
            return folder.load(parts=parts, mirrors=mirrors, threads=threads, on_images=bar.advance)

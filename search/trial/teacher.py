"""The dense network's logits for all training images: computed once, in a file that all trials and studies share."""

from __future__ import annotations

import io
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.data.datasets import Dataset
from pruner.system.files import insist, write_at, write_whole
from pruner.system.machine import has_fast_half
from pruner.training.distill import Teacher, half_is_right, logits_by_chunk
from search.filesystem import locked
from search.storage.folder import StudyFolder
from search.study.spec import StudySpec
from search.terminal.progress import Progress
from search.trial.dense import data_hash


def open_teacher(
    dense: MobileNetV2, key: str, spec: StudySpec, data: Dataset, folder: StudyFolder, progress: Progress
) -> Teacher:
    """Load the logits, computing those that are missing. If another process is computing them, wait for it.

    `key` is the hash of the dense network's weights. The file is a NumPy array (images, 1 or 2, classes) of 32-bit
    floats that is mapped into memory, so that all workers of a machine share one copy.
    """
    path = folder.dense / f"logits-{data.name}-{key}-{data_hash(spec, data)}.npy"
    if not path.exists():
        with locked(path.with_suffix(".lock")):
            if not path.exists():
                _compute(dense, spec, data, path, progress)
    logits = torch.from_numpy(np.load(path, mmap_mode="c"))  # "c": torch needs writable memory
    return Teacher(logits.to(data.train.images.device))


def _compute(dense: MobileNetV2, spec: StudySpec, data: Dataset, path: Path, progress: Progress) -> None:
    """Write the file. Rows are appended to a partial file first, so a killed process loses one chunk at most."""
    train, sides = data.train, 2 if data.mirrors else 1
    unfinished, row = path.with_suffix(".partial"), sides * data.classes * np.dtype(np.float32).itemsize
    done = unfinished.stat().st_size // row if unfinished.exists() else 0
    resolution = spec.data.resolution
    model = deepcopy(dense).to(train.images.device)
    half = has_fast_half(train.images.device) and half_is_right(model, train, resolution=resolution)
    title = "the dense network's logits"
    with (
        unfinished.open("r+b" if done else "wb") as file,
        progress.task(title, sides * len(train), done=sides * done) as bar,
    ):
        file.truncate(done * row)  # drops a row that was half written
        for chunk in logits_by_chunk(model, train, resolution=resolution, mirrors=data.mirrors, half=half, start=done):
            insist(partial(write_at, file, done * row, chunk.cpu().numpy().tobytes()))
            done += len(chunk)
            bar.advance(sides * len(chunk))
    whole = io.BytesIO()
    np.save(whole, np.fromfile(unfinished, np.float32).reshape(len(train), sides, data.classes))
    write_whole(path, whole.getvalue())
    unfinished.unlink()

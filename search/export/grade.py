"""Grade a finished network as the course does: on the test images, from the file that is handed in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from pruner.data.datasets import Dataset
from pruner.errors import InputError
from pruner.measurement.measure import accuracy, compressed_bytes, count, drop_last, evaluate, nonzero_params
from pruner.network.count import GRADER_RESOLUTION
from pruner.network.loading import load_network
from pruner.network.mobilenet import architecture_difference, classes
from search.study.score import ScoreRule
from search.terminal.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """The figures that the grader would find for a file."""

    mflops: float
    accuracy: float
    """On all test images."""
    accuracy_drop_last: float
    """On the test images that the course's grader sees: its loader drops the last batch if it has fewer than 64."""
    score: float | None
    """From `accuracy`; None in a study of another goal."""
    score_drop_last: float | None
    """From `accuracy_drop_last`."""
    params: int
    size_bytes: int
    """The size of the file."""
    nonzero_params: int
    """Masks reduce them, but neither the operations nor the file's size."""
    compressed_bytes: int
    """The compressed size of the network as one pickled module."""
    originates_from_mobilenetv2: bool
    graded_on: str = "test"
    """The images: `test`, or `val` where a folder has no test images."""


def grade(
    path: Path, data: Dataset, rule: ScoreRule | None, resolution: int, device: torch.device, progress: Progress,
    *, count_resolution: int = GRADER_RESOLUTION,
) -> Grade:  # fmt: skip
    """Load the file, running no code of it, and classify the test images.

    Images are resized to `resolution` pixels a side; operations are counted for images of `count_resolution`.

    Raises InputError if it holds no MobileNetV2 for the data's classes.
    """
    model = load_network(path).to(device)
    if classes(model) != data.classes:
        raise InputError(f"{path}: has {classes(model)} classes, {data.name} has {data.classes}")
    mflops, params = count(model, count_resolution)
    with progress.task(f"grading {path.name}", len(data.test)) as bar:
        right = evaluate(model, data.test, resolution=resolution, on_images=bar.advance)
    seen = accuracy(drop_last(right))
    return Grade(
        mflops=mflops,
        accuracy=accuracy(right),
        accuracy_drop_last=seen,
        score=rule(mflops, accuracy(right)) if rule else None,
        score_drop_last=rule(mflops, seen) if rule else None,
        params=params,
        size_bytes=path.stat().st_size,
        nonzero_params=nonzero_params(model),
        compressed_bytes=compressed_bytes(model),
        originates_from_mobilenetv2=architecture_difference(model) is None,
        graded_on=data.graded_on,
    )

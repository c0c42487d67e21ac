"""Folders of images for tests, written from a data set's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from pruner.data.datasets import Split


def write_split(folder: Path, split: Split, class_names: tuple[str, ...]) -> None:
    """Write `folder/CLASS/NUMBER.png`, numbered in the split's order."""
    for name in class_names:
        (folder / name).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / class_names[label] / f"{number:05}.png")


def write_images(folder: Path, counts: Mapping[str, int], size: tuple[int, int] = (12, 10)) -> None:
    """Write `folder/CLASS/CLASS-NUMBER.png`, so many of each class, each of another colour."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", size, (label, number % 256, number // 256)).save(folder / name / f"{name}-{number}.png")

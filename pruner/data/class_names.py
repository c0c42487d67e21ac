"""The names of the data sets' classes."""

from __future__ import annotations

CLASS_NAMES: dict[str, tuple[str, ...]] = {
    "cifar10": ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    "digits": ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
}
"""Data set -> the names of its classes, in the order of a network's outputs."""

"""Sensitivity scans of a network, saved point by point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.channels.importance import score_channels
from pruner.data.datasets import Dataset
from pruner.errors import InputError
from pruner.measurement.measure import accuracy, evaluate
from pruner.network.structure import STAGES
from pruner.resources import calibration
from pruner.system.files import read_json, write_json
from pruner.weights.masks import score_weights, weights
from pruner.weights.sensitivity import allocate_sparsity, scan_channels, scan_weights
from search.results.table import text_table
from search.terminal.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanSettings:
    """Everything that a scan's accuracies depend on, apart from the sparsities."""

    what: str
    """weights or channels."""
    importance: str
    weights: str
    """The hash of the network's weights."""
    data: str
    images: int
    """How many images of the holdout are used, from the first."""
    resolution: int


def sensitivity(
    model: MobileNetV2,
    settings: ScanSettings,
    sparsities: Sequence[float],
    data: Dataset,
    path: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Measure accuracy against sparsity, skipping the points that the file already holds; returns its content.

    The content is JSON-ready: `settings`, `dense` (the accuracy of the unpruned network) and `points` (name, sparsity,
    accuracy). The file is written after every point.

    Raises InputError if the file belongs to another scan.
    """
    kept = read_json(path) or {"settings": asdict(settings), "dense": None, "points": []}
    if kept["settings"] != asdict(settings):
        raise InputError(f"{path}: holds a scan with other settings; give another file with --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    split = data.holdout.first(settings.images)
    if kept["dense"] is None:
        with progress.task("the network as it is", len(split)) as bar:
            right = evaluate(model, split, resolution=settings.resolution, batch_size=50, on_images=bar.advance)
        kept["dense"] = accuracy(right)
        write_json(path, kept)
    known = {(point["name"], point["sparsity"]) for point in kept["points"]}
    names = list(weights(model)) if settings.what == "weights" else list(STAGES)
    todo = sum((name, sparsity) not in known for name in names for sparsity in sparsities)
    if not todo:
        return kept
    walk = scan_weights if settings.what == "weights" else scan_channels
    with progress.task("scanning", todo * len(split)) as bar:
        scores = _scores(model, settings, data, progress)
        points = walk(
            model, split, scores, sparsities, resolution=settings.resolution, skip=known, on_images=bar.advance
        )
        for point in points:
            kept["points"].append(asdict(point))
            write_json(path, kept)
            bar.say(f"scanning {point.name}")
    return kept


def _scores(model: MobileNetV2, settings: ScanSettings, data: Dataset, progress: Progress) -> Any:
    images = calibration(data.train, 128, seed=0)
    rank = score_weights if settings.what == "weights" else score_channels
    with progress.task(f"{settings.importance}: ranking {settings.what}", len(images)) as bar:
        return rank(model, settings.importance, images, resolution=settings.resolution, on_images=bar.advance)


def curves(found: dict[str, Any]) -> dict[str, dict[float, float]]:
    """Name -> sparsity -> accuracy, in the network's order."""
    by_name: dict[str, dict[float, float]] = {}
    for point in found["points"]:
        by_name.setdefault(point["name"], {})[point["sparsity"]] = point["accuracy"]
    return by_name


def spread_over(model: MobileNetV2, found: dict[str, Any], nonzero: float) -> dict[str, float]:
    """Allocate sparsities to the layers so that the share `nonzero` of all parameters is not zero.

    See `pruner.weights.sensitivity.allocate_sparsity`. Raises InputError if the scan does not go far enough.
    """
    sizes = {name: weight.numel() for name, weight in weights(model).items()}
    params = sum(parameter.numel() for parameter in model.parameters())
    of_weights = (nonzero * params - (params - sum(sizes.values()))) / sum(sizes.values())
    return allocate_sparsity(curves(found), sizes, found["dense"], max(0.0, of_weights))


def table(found: dict[str, Any]) -> str:
    """The scan as a text table: a row for each layer, a column for each sparsity."""
    by_name = curves(found)
    sparsities = sorted({sparsity for curve in by_name.values() for sparsity in curve})
    rows = [[name, *(f"{curve[s]:.2%}" if s in curve else "" for s in sparsities)] for name, curve in by_name.items()]
    text = text_table(["", *(f"{sparsity:.3g}" for sparsity in sparsities)], rows)
    return f"{text}\nThe network as it is: {found['dense']:.2%} of {found['settings']['images']} images."

"""Several networks side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.data.datasets import Dataset
from pruner.measurement.latency import latency
from pruner.measurement.measure import count
from pruner.network.count import layers
from pruner.network.loading import load_network
from pruner.network.mobilenet import classes, widths
from pruner.weights.masks import looks_masked, weights
from search.export.grade import grade
from search.report.weights import distributions_figure, mask_figure, parameters_figure
from search.results.table import text_table
from search.study.score import ScoreRule
from search.terminal.progress import Progress

_BINS = 40


def comparison(
    paths: Sequence[Path],
    data: Dataset | None,
    rule: ScoreRule,
    *,
    resolution: int,
    threads: int,
    device: torch.device,
    progress: Progress,
) -> list[dict[str, Any]]:
    """A JSON-ready row for every network; `accuracy` and `score` on the test images are None without `data`.

    `threads`: the threads with which latency is measured. Raises InputError if a file holds no MobileNetV2.
    """
    models = [load_network(path) for path in paths]  # report a bad file before computing anything
    rows = []
    for path, model in zip(paths, models, strict=True):
        mflops, params = count(model)
        took = latency(model, resolution=resolution, threads=threads)
        graded = grade(path, data, rule, resolution, device, progress) if data else None
        by_stage: dict[str, float] = {}
        for layer in layers(widths(model), classes(model)):
            by_stage[layer.stage] = by_stage.get(layer.stage, 0.0) + layer.operations / 1e6
        rows.append(
            {
                "file": str(path),
                "mflops": mflops,
                "params": params,
                "size_bytes": path.stat().st_size,
                "latency_ms": took.median_ms,
                "latency_p90_ms": took.p90_ms,
                "accuracy": graded.accuracy if graded else None,
                "score": graded.score if graded else None,
                "mflops_by_stage": by_stage,
            }
        )
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a text table, best score first if there are scores."""
    stages = list(rows[0]["mflops_by_stage"])
    titles = ["model", "MFLOPs", *(stage.replace("stage", "s") for stage in stages), "parameters", "bytes", "ms",
              "accuracy", "score"]  # fmt: skip
    return text_table(titles, [_cells(row, stages) for row in sorted(rows, key=lambda row: -(row["score"] or 0.0))])


def _cells(row: dict[str, Any], stages: Sequence[str]) -> list[str]:
    return [
        Path(row["file"]).name,
        f"{row['mflops']:.2f}",
        *(f"{row['mflops_by_stage'][stage]:.1f}" for stage in stages),
        f"{row['params']:,}",
        f"{row['size_bytes']:,}",
        f"{row['latency_ms']:.1f}",
        "" if row["accuracy"] is None else f"{row['accuracy']:.2%}",
        "" if row["score"] is None else f"{row['score']:.2f}",
    ]


def weight_figures(before: MobileNetV2, after: MobileNetV2) -> dict[str, go.Figure]:
    """Figures of two networks of equal widths: weights by layer, their distributions, the mask of a small tensor."""
    old, new = ({name: w.detach() for name, w in weights(model).items()} for model in (before, after))
    nonzero = {name: int(torch.count_nonzero(weight)) for name, weight in new.items()}
    masked = [name for name, weight in new.items() if looks_masked(weight)]
    edges = {}
    for name in old:
        both = torch.cat([old[name].flatten(), new[name].flatten()])
        edges[name] = torch.linspace(float(both.min()), float(both.max()), _BINS + 1)
    counts = [{name: _histogram(w, edges[name]) for name, w in network.items()} for network in (old, new)]
    figures = {
        "parameters": parameters_figure(
            {name: weight.numel() for name, weight in old.items()}, nonzero if masked else None
        ),
        "distributions": distributions_figure(
            counts[0], counts[1], {name: edge.tolist() for name, edge in edges.items()}
        ),
    }
    if masked:
        smallest = min(masked, key=lambda name: new[name].numel())
        figures["mask"] = mask_figure((new[smallest] != 0).flatten(1).tolist(), smallest)
    return figures


def _histogram(weight: torch.Tensor, edges: torch.Tensor) -> list[int]:
    values = weight.flatten()
    return torch.histogram(values[values != 0], edges).hist.int().tolist()

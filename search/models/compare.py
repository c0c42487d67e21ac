"""Several networks side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import torch
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.data.datasets import Dataset
from pruner.errors import InputError
from pruner.exports.onnx_file import OnnxClassifier
from pruner.measurement.latency import Backend, Latency, in_turns, model_subject, onnx_subject
from pruner.measurement.measure import accuracy, count, right_answers
from pruner.network.count import count_of, mflops_by_stage
from pruner.weights.masks import looks_masked, weights
from search.export.grade import grade
from search.models.network import Network
from search.report.weights import distributions_figure, mask_figure, parameters_figure
from search.results.table import text_table
from search.study.score import ScoreRule
from search.terminal.progress import Progress

_BINS = 40


def comparison(
    networks: Sequence[Network],
    data: Dataset | None,
    rule: ScoreRule,
    *,
    resolution: int,
    threads: int,
    device: torch.device,
    progress: Progress,
) -> list[dict[str, Any]]:
    """A JSON-ready row for every network.

    `accuracy` and `score` on the test images are None without `data`; ONNX has no score, as the course grades .pth
    files only. MFLOPs and parameters are None for ONNX of other programs. Latencies are measured in turns: by torch, or
    by onnxruntime if any network is in ONNX. `threads`: the threads with which they are measured.

    Raises InputError if a network is not for the data's classes.
    """
    if data and (wrong := next((one for one in networks if one.classes != data.classes), None)):
        raise InputError(f"{wrong.path}: has {wrong.classes} classes, {data.name} has {data.classes}")
    rows = []
    for network, took in zip(networks, _latencies(networks, resolution, threads), strict=True):
        mflops, params, by_stage = _operations(network)
        reached, score = None, None
        if data and network.onnx:
            reached = _accuracy(network.onnx, data, resolution, progress)
        elif data:
            graded = grade(network.path, data, rule, resolution, device, progress)
            reached, score = graded.accuracy, graded.score
        rows.append(
            {
                "file": str(network.path),
                "mflops": mflops,
                "params": params,
                "size_bytes": network.path.stat().st_size,
                "latency_ms": took.median_ms,
                "latency_p90_ms": took.p90_ms,
                "latency_backend": took.backend,
                "accuracy": reached,
                "score": score,
                "mflops_by_stage": by_stage,
            }
        )
    return rows


def _latencies(networks: Sequence[Network], resolution: int, threads: int) -> list[Latency]:
    backend: Backend = "torch" if all(network.model for network in networks) else "onnxruntime"
    how = {"resolution": resolution, "batch_size": 1, "threads": threads}
    return in_turns(
        [
            model_subject(network.model, backend, **how) if network.model else onnx_subject(network.path, **how)
            for network in networks
        ]
    )


def _operations(network: Network) -> tuple[float | None, int | None, dict[str, float] | None]:
    """(MFLOPs, parameters, MFLOPs by stage), as far as they are known. Of ONNX: those of the network before."""
    if network.widths is None:
        return None, None, None
    mflops, params = count(network.model) if network.model else count_of(network.widths, network.classes)
    return mflops, params, mflops_by_stage(network.widths, network.classes)


def _accuracy(classifier: OnnxClassifier, data: Dataset, resolution: int, progress: Progress) -> float:
    with progress.task(f"grading {classifier.file.name}", len(data.test)) as bar:
        return accuracy(right_answers(classifier, data.test, resolution=resolution, on_images=bar.advance))


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a text table, the best first if there are scores or accuracies."""
    stages = list(next((row["mflops_by_stage"] for row in rows if row["mflops_by_stage"]), []))
    titles = ["model", "MFLOPs", *(stage.replace("stage", "s") for stage in stages), "parameters", "bytes",
              "ms" if rows[0]["latency_backend"] == "torch" else "ms (onnxruntime)", "accuracy", "score"]  # fmt: skip
    ordered = sorted(rows, key=lambda row: (-(row["score"] or 0.0), -(row["accuracy"] or 0.0)))
    return text_table(titles, [_cells(row, stages) for row in ordered])


def _cells(row: dict[str, Any], stages: Sequence[str]) -> list[str]:
    by_stage = row["mflops_by_stage"]
    return [
        Path(row["file"]).name,
        _known(row["mflops"], ".2f"),
        *(_known(by_stage and by_stage[stage], ".1f") for stage in stages),
        _known(row["params"], ","),
        f"{row['size_bytes']:,}",
        f"{row['latency_ms']:.1f}",
        _known(row["accuracy"], ".2%"),
        _known(row["score"], ".2f"),
    ]


def _known(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


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

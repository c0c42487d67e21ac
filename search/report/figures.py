"""Plotly figures of a study. Every figure is a pure function of records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate

import plotly.graph_objects as go

from search.report.choices import choices_figure, variants_figure
from search.report.layers import layers_figure, map_sizes_figure, models_figure, widths_figure
from search.report.pareto import pareto_figure
from search.report.studies import studies_figure
from search.report.style import BLUE, GREEN, LIGHT, OPERATIONS, ORANGE, hover, percent, styled
from search.results.records import Dense, Record, best, finished, pareto
from search.study.constraints import size_mb
from search.study.score import DIRECTIONS

__all__ = [
    "before_after_figure",
    "choices_figure",
    "curves_figure",
    "history_figure",
    "importances_figure",
    "layers_figure",
    "map_sizes_figure",
    "models_figure",
    "pareto_figure",
    "sizes_figure",
    "studies_figure",
    "variants_figure",
    "widths_figure",
]


_SIZE = "parameters that are not zero (MB)"


_GOALS = {
    "score": ("Scores", "score", "score (points)", 1.0),
    "accuracy": ("Accuracy", "accuracy", "holdout accuracy (%)", 100.0),
    "mflops": ("Operations", "operations", OPERATIONS, 1.0),
    "params": ("Parameters", "parameters", "parameters", 1.0),
    "latency_ms": ("Latency", "latency", "latency (ms)", 1.0),
    "nonzero_bytes": ("Sizes", "size", _SIZE, 1e-6),
}
"""A study's goal -> the history figure's title, the points' name, the axis and what a value is multiplied by."""


def history_figure(found: Sequence[Record], goal: str = "score") -> go.Figure:
    """What every finished trial reached of the study's goal, and the best so far."""
    done, (title, name, axis, unit) = finished(found), _GOALS[goal]
    sign = unit if DIRECTIONS[goal] == "maximize" else -unit
    figure = go.Figure(
        go.Scatter(
            x=[r.number for r in done],
            y=[sign * (r.fitness or 0.0) for r in done],
            mode="markers",
            marker={"color": BLUE, "size": 9},
            name=name,
            customdata=[hover(r) for r in done],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    line = {"color": ORANGE, "shape": "hv"}
    figure.add_trace(
        go.Scatter(
            x=[r.number for r in done],
            y=[sign * fitness if math.isfinite(fitness) else None for fitness in _best_so_far(done)],
            mode="lines",
            line=line,
            name="best so far",
        )
    )
    last = max((r.number for r in done), default=0)
    figure.update_xaxes(range=[-0.03 * last - 0.3, 1.03 * last + 0.3], dtick=1 if last <= 20 else None)
    return styled(figure, f"{title} by trial", "trial", axis)


def _best_so_far(done: Sequence[Record]) -> list[float]:
    """The best fitness so far; minus infinity before the first trial that meets the constraints."""
    fitness = (r.fitness if r.feasible and r.fitness is not None else float("-inf") for r in done)
    return list(accumulate(fitness, max))


def sizes_figure(found: Sequence[Record], dense: Dense | None) -> go.Figure:
    """Holdout accuracy against nonzero size, for studies of masks: trials, Pareto front, best, dense network."""
    done, top, figure = finished(found), best(found), go.Figure()
    front = pareto(found, "nonzero_bytes")
    line = {"color": GREEN, "width": 2, "shape": "hv"}
    for name, shown, style in (
        ("trials", done, {"mode": "markers", "marker": {"color": BLUE, "size": 9}}),
        ("Pareto front", front, {"mode": "lines", "line": line}),
        ("best", [top] if top else [], {"mode": "markers", "marker": {"color": ORANGE, "size": 16, "symbol": "star"}}),
    ):
        figure.add_trace(
            go.Scatter(
                x=[_megabytes(r) for r in shown],
                y=[percent(r.accuracy) for r in shown],
                name=name,
                customdata=[hover(r) for r in shown],
                hovertemplate="%{customdata}<extra></extra>",
                **style,
            )
        )
    if dense and dense.accuracy is not None:
        marker = {"color": "white", "size": 12, "symbol": "diamond", "line": {"color": "black", "width": 2}}
        figure.add_trace(
            go.Scatter(
                x=[size_mb(dense.params)], y=[percent(dense.accuracy)], mode="markers", marker=marker,
                name="dense network",
            )
        )  # fmt: skip
    figure.update_xaxes(rangemode="tozero")
    return styled(figure, "Accuracy against size", _SIZE, "holdout accuracy (%)")


def importances_figure(importances: Mapping[str, float]) -> go.Figure:
    """The share of the result's variation that each sampled parameter explains, the most important on top."""
    names = sorted(importances, key=lambda name: importances[name])
    figure = go.Figure(
        go.Bar(
            x=[importances[name] for name in names],
            y=names,
            orientation="h",
            marker={"color": BLUE},
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    figure.update_xaxes(tickformat=".0%")
    return styled(figure, "What the result depends on", "share of the variation (%)", "parameter")


def curves_figure(found: Sequence[Record]) -> go.Figure:
    """Accuracy by epoch of every trial that trained, starting before retraining; the best trial stands out."""
    top, figure, named = best(found), go.Figure(), False
    shown = [r for r in found if r.curve and r.same_as is None]
    for r in sorted(shown, key=lambda r: r == top):  # the best comes last, so it is drawn on top
        first = 0 if r.accuracy_before is not None else 1
        values = ([r.accuracy_before] if first == 0 else []) + list(r.curve)
        is_best = r == top
        figure.add_trace(
            go.Scatter(
                x=list(range(first, first + len(values))),
                y=[percent(value) for value in values],
                mode="lines+markers",
                line={"color": ORANGE if is_best else BLUE, "width": 3 if is_best else 1},
                opacity=1.0 if is_best else 0.5,
                name=f"best: trial {r.number}" if is_best else "other trials",
                showlegend=is_best or not named,
                customdata=[hover(r)] * len(values),
                hovertemplate="epoch %{x}: %{y:.2f} %<br>%{customdata}<extra></extra>",
            )
        )
        named = named or not is_best
    if max((len(r.curve) for r in shown), default=0) <= 20:
        figure.update_xaxes(dtick=1)
    return styled(
        figure, "Learning curves", "epoch (0: before retraining)", "accuracy (%), holdout images"
    )  # fmt: skip


def _megabytes(r: Record) -> float:
    return (r.nonzero_bytes or 0) / 1e6


def before_after_figure(found: Sequence[Record], *, sparse: bool = False) -> go.Figure:
    """Each finished trial's accuracy before and after retraining, by operations; in a `sparse` study, by size."""
    done = [r for r in finished(found) if r.accuracy_before is not None]
    sizes = [_megabytes(r) if sparse else r.mflops for r in done]
    figure = go.Figure()
    x = [value for size in sizes for value in (size, size, None)]
    y = [value for r in done for value in (percent(r.accuracy_before), percent(r.accuracy), None)]
    figure.add_trace(
        go.Scatter(x=x, y=y, mode="lines", line={"color": LIGHT, "width": 2}, showlegend=False, hoverinfo="skip")
    )
    for name, values, marker in (
        ("before retraining", [r.accuracy_before for r in done], {"color": ORANGE, "symbol": "triangle-up-open"}),
        ("after retraining", [r.accuracy for r in done], {"color": BLUE, "symbol": "circle"}),
    ):
        figure.add_trace(
            go.Scatter(
                x=sizes,
                y=[percent(value) for value in values],
                mode="markers",
                marker={**marker, "size": 9},
                name=name,
                customdata=[hover(r) for r in done],
                hovertemplate=f"{name}: %{{y:.2f}} %<br>%{{customdata}}<extra></extra>",
            )
        )
    return styled(figure, "Accuracy regained by retraining", _SIZE if sparse else OPERATIONS, "holdout accuracy (%)")

"""The trade-off figure: accuracy against MFLOPs, with the Pareto front and lines of equal score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from search.report.style import BLUE, GREEN, GREY, LIGHT, OPERATIONS, ORANGE, hover, percent, styled
from search.results.records import Dense, Record, best, finished, pareto
from search.study.score import ScoreRule


def pareto_figure(found: Sequence[Record], rule: ScoreRule | None, dense: Dense | None = None) -> go.Figure:
    """Accuracy against MFLOPs: finished trials, their front, the best, the dense network, and lines of equal score.

    `rule`: None in a study whose goal is not the score.
    """
    done, front, top = finished(found), pareto(found), best(found)
    figure = go.Figure()
    box = _around(done, rule, dense)
    if rule:
        for score in _round_scores([r.score for r in done if r.score is not None]):
            figure.add_trace(_equal_score(rule, score, box))
    figure.update_xaxes(range=[box.left, box.right])
    figure.update_yaxes(range=[100 * box.low, 100 * box.high])
    figure.add_trace(_points(done, "trials", {"color": BLUE, "size": 9}))
    figure.add_trace(
        go.Scatter(
            x=[r.mflops for r in front],
            y=[percent(r.expected) for r in front],
            mode="lines",
            line={"color": GREEN, "width": 2, "shape": "hv"},
            name="Pareto front",
            hoverinfo="skip",
        )
    )
    if top:
        marker = {"color": ORANGE, "size": 16, "symbol": "star", "line": {"color": "black", "width": 1}}
        said = f", score {top.score:.2f}" if rule else ""
        figure.add_trace(_points([top], f"best: trial {top.number}{said}", marker))
    if dense:
        _mark_dense(figure, dense, box)
    if rule:
        clamp, equal = {"color": "black", "width": 1, "dash": "dot"}, {"color": GREY, "width": 1, "dash": "dash"}
        figure.add_hline(y=100 * rule.accuracy_full, line=clamp)
        for name, line in ((f"no penalty from {100 * rule.accuracy_full:g} % up", clamp), ("equal score", equal)):
            figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", line=line, name=name))  # for the legend
    predicted = any(r.predicted is not None for r in done)
    return styled(
        figure, "Accuracy against operations", OPERATIONS,
        "predicted accuracy after training (%)" if predicted else "holdout accuracy (%)",
    )  # fmt: skip


def _mark_dense(figure: go.Figure, dense: Dense, box: _Box) -> None:
    if dense.accuracy is None:
        return
    said = f"dense network: {dense.mflops:.0f} MFLOPs, {percent(dense.accuracy):.1f} %"
    if dense.mflops <= box.right:
        figure.add_trace(
            go.Scatter(
                x=[dense.mflops],
                y=[percent(dense.accuracy)],
                mode="markers",
                marker={"color": "white", "size": 12, "symbol": "diamond", "line": {"color": "black", "width": 2}},
                name="dense network",
                hovertemplate=f"{said}<extra></extra>",
            )
        )
        return
    height = min(max(dense.accuracy, box.low), box.high)
    figure.add_annotation(
        x=box.right, y=100 * height, text=f"{said} →", showarrow=False, xanchor="right", yanchor="bottom"
    )  # fmt: skip


def _points(found: Sequence[Record], name: str, marker: dict[str, Any]) -> go.Scatter:
    return go.Scatter(
        x=[r.mflops for r in found],
        y=[percent(r.expected) for r in found],
        mode="markers",
        marker=marker,
        error_y=_uncertainty(found),
        name=name,
        customdata=[hover(r) for r in found],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _uncertainty(found: Sequence[Record]) -> dict[str, Any] | None:
    """Error bars of one standard deviation; None if no accuracy is predicted."""
    if all(r.predicted is None for r in found):
        return None
    return {"type": "data", "array": [percent(r.predicted_std) for r in found], "color": LIGHT, "width": 0}


def _round_scores(scores: Sequence[float]) -> list[float]:
    """A few round scores that span those reached."""
    if not scores:
        return []
    low, high = min(scores), max(scores)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 1000) if (high - low) / s <= 6)
    first = int(low // step) * step
    return [float(first + i * step) for i in range(int((high - first) // step) + 2)]


def _equal_score(rule: ScoreRule, score: float, box: _Box) -> go.Scatter:
    """The part of the line of equal score that lies in the box, labelled at its upper end."""
    bends = [box.low, *({rule.accuracy_full} if box.low < rule.accuracy_full < box.high else ()), box.high]
    points = [(rule.mflops_at(score, accuracy), accuracy) for accuracy in bends]
    if points[-1][0] > box.right:  # it leaves through the right side
        points = [point for point in points if point[0] < box.right]
        points.append((box.right, rule.accuracy_at(score, box.right)))
    return go.Scatter(
        x=[x for x, _ in points],
        y=[100 * y for _, y in points],
        mode="lines+text",
        line={"color": GREY, "width": 1, "dash": "dash"},
        text=[""] * (len(points) - 1) + [f"{score:g}"],
        textposition="bottom left",
        textfont={"color": GREY},
        name=f"score {score:g}",
        showlegend=False,
        hoverinfo="skip",
    )


@dataclass(frozen=True, slots=True)
class _Box:
    """The region that a figure shows: MFLOPs to the right, accuracy in [0, 1] upwards."""

    left: float
    right: float
    low: float
    high: float


def _around(done: Sequence[Record], rule: ScoreRule | None, dense: Dense | None) -> _Box:
    """The box around all trials, the rule's full-score accuracy and, unless it is far off, the dense network."""
    mflops = [r.mflops or 0.0 for r in done]
    accuracies = [r.expected or 0.0 for r in done] + ([rule.accuracy_full] if rule else [])
    if dense and dense.accuracy is not None and (not mflops or dense.mflops < 2.5 * max(mflops)):
        mflops.append(dense.mflops)
        accuracies.append(dense.accuracy)
    mflops = mflops or [45.0, 200.0]
    accuracies = accuracies or [0.0, 1.0]
    across, up = 0.08 * (max(mflops) - min(mflops)) + 2, 0.08 * (max(accuracies) - min(accuracies)) + 0.005
    return _Box(min(mflops) - across, max(mflops) + across, min(accuracies) - up, min(1.03, max(accuracies) + up))

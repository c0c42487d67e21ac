"""Records -> plotly figures, and the report that holds them. Every figure is a pure function."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from search.results import Record, best, finished, headline, pareto
from search.score import ScoreRule
from search.study_file import StudySpec

# Okabe and Ito's colours, which colour-blind readers can tell apart.
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#999999"


def pareto_figure(found: Sequence[Record], rule: ScoreRule) -> go.Figure:
    """MFLOPs against holdout accuracy: all finished trials, the Pareto front, lines of equal score, the best."""
    done, front, top = finished(found), pareto(found), best(found)
    figure = go.Figure()
    if done:
        box = _around(done, rule)
        for score in _round_scores([r.score for r in done if r.score is not None]):
            figure.add_trace(_equal_score(rule, score, box))
        figure.update_xaxes(range=[box.left, box.right])
        figure.update_yaxes(range=[100 * box.low, 100 * box.high])
    figure.add_trace(_points(done, "trials", {"color": _BLUE, "size": 9}))
    figure.add_trace(
        go.Scatter(
            x=[r.mflops for r in front],
            y=[_percent(r.accuracy) for r in front],
            mode="lines",
            line={"color": _GREEN, "width": 2, "shape": "hv"},
            name="Pareto front",
            hoverinfo="skip",
        )
    )
    if top:
        marker = {"color": _ORANGE, "size": 16, "symbol": "star", "line": {"color": "black", "width": 1}}
        figure.add_trace(_points([top], f"best: trial {top.number}, score {top.score:.2f}", marker))
    figure.add_hline(
        y=100 * rule.accuracy_full,
        line={"color": _GREY, "dash": "dot"},
        annotation_text="no penalty above",
        annotation_position="top left",
    )
    return _styled(figure, "Accuracy against operations", "operations (MFLOPs at 224 px)", "holdout accuracy (%)")


def history_figure(found: Sequence[Record]) -> go.Figure:
    """The score of every finished trial, and the best so far."""
    done = finished(found)
    figure = go.Figure(
        go.Scatter(
            x=[r.number for r in done],
            y=[r.score for r in done],
            mode="markers",
            marker={"color": _BLUE, "size": 9},
            name="score",
            customdata=[_hover(r) for r in done],
            hovertemplate="%{customdata}<extra></extra>",
        )
    )
    so_far: list[float] = []
    for r in done:
        counts = r.score if r.feasible and r.score is not None else float("-inf")
        so_far.append(max([*so_far[-1:], counts]))
    figure.add_trace(
        go.Scatter(
            x=[r.number for r in done],
            y=so_far,
            mode="lines",
            line={"color": _ORANGE, "shape": "hv"},
            name="best so far",
        )
    )
    figure.update_xaxes(rangemode="tozero", dtick=1 if len(found) <= 20 else None)
    return _styled(figure, "Scores by trial", "trial", "score")


def importances_figure(importances: Mapping[str, float]) -> go.Figure:
    """How much of the score's variation each sampled parameter explains; the most important on top."""
    names = sorted(importances, key=lambda name: importances[name])
    figure = go.Figure(
        go.Bar(
            x=[importances[name] for name in names],
            y=names,
            orientation="h",
            marker={"color": _BLUE},
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    )
    figure.update_xaxes(tickformat=".0%")
    figure.update_yaxes(automargin=True)
    return _styled(figure, "What the score depends on", "share of the score's variation", "parameter")


def report(spec: StudySpec, found: Sequence[Record], importances: Mapping[str, float]) -> str:
    """The study as one HTML page that needs nothing else."""
    figures = [pareto_figure(found, spec.score), history_figure(found)]
    if importances:
        figures.append(importances_figure(importances))
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=i == 0, config={"responsive": True, "displaylogo": False})
        for i, figure in enumerate(figures)
    ]
    title = html.escape(f"Study {spec.name}")
    body = "\n".join(f"<figure>{part}</figure>" for part in parts)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222 }}
figure {{ margin: 2rem 0; break-inside: avoid }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100% }}
th, td {{ padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }}
th:nth-child(2), td:nth-child(2), th:last-child, td:last-child {{ text-align: left }}
tr.best {{ font-weight: 600; background: #fdf1e7 }}
</style></head><body>
<h1>{title}</h1>
<p>{html.escape(spec.about)}</p>
<p>{html.escape(headline(found))}</p>
{body}
<div class="wide">{_table(found)}</div>
</body></html>
"""


def _table(found: Sequence[Record]) -> str:
    top = best(found)
    titles = ("trial", "state", "score", "MFLOPs", "removed", "accuracy", "parameters", "removed", "seconds", "sampled")
    rows = []
    for r in found:
        sampled = ", ".join(f"{name} {_short(value)}" for name, value in r.sampled.items())
        cells = (
            str(r.number),
            r.state,
            _cell(r.score, ".2f"),
            _cell(r.mflops, ".2f"),
            _cell(r.mflops_removed, ".1%"),
            _cell(r.accuracy, ".2%"),
            _cell(r.params, ",d"),
            _cell(r.params_removed, ".1%"),
            _cell(r.seconds, ",.0f"),
            f"{sampled} {r.reason}",
        )
        mark = ' class="best"' if r == top else ""
        rows.append(f"<tr{mark}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{title}</th>" for title in titles)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _percent(accuracy: float | None) -> float:
    return 100 * (accuracy or 0.0)


def _hover(r: Record) -> str:
    sampled = "<br>".join(f"{name} = {_short(value)}" for name, value in r.sampled.items())
    return (
        f"<b>trial {r.number}</b>, score {r.score:.2f}<br>{r.mflops:.2f} MFLOPs, "
        f"{_percent(r.accuracy):.2f} %<br>{sampled}"
    )


def _points(found: Sequence[Record], name: str, marker: dict[str, Any]) -> go.Scatter:
    return go.Scatter(
        x=[r.mflops for r in found],
        y=[_percent(r.accuracy) for r in found],
        mode="markers",
        marker=marker,
        name=name,
        customdata=[_hover(r) for r in found],
        hovertemplate="%{customdata}<extra></extra>",
    )


def _round_scores(scores: Sequence[float]) -> list[float]:
    """A handful of round scores that span those reached."""
    if not scores:
        return []
    low, high = min(scores), max(scores)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 1000) if (high - low) / s <= 6)
    first = int(low // step) * step
    return [float(first + i * step) for i in range(int((high - first) // step) + 2)]


def _equal_score(rule: ScoreRule, score: float, box: _Box) -> go.Scatter:
    """The line on which every network earns the same, as far as it lies in the box, labelled at its upper end."""
    bends = [box.low, *({rule.accuracy_full} if box.low < rule.accuracy_full < box.high else ()), box.high]
    points = [(rule.mflops_at(score, accuracy), accuracy) for accuracy in bends]
    if points[-1][0] > box.right:  # it leaves through the right side
        points = [point for point in points if point[0] < box.right]
        points.append((box.right, rule.accuracy_at(score, box.right)))
    return go.Scatter(
        x=[x for x, _ in points],
        y=[100 * y for _, y in points],
        mode="lines+text",
        line={"color": _GREY, "width": 1, "dash": "dash"},
        text=[""] * (len(points) - 1) + [f"{score:g}"],
        textposition="bottom left",
        textfont={"color": _GREY},
        name=f"score {score:g}",
        showlegend=False,
        hoverinfo="skip",
    )


@dataclass(frozen=True, slots=True)
class _Box:
    """The part of the plane that a figure shows: MFLOPs to the right, accuracy in [0, 1] upwards."""

    left: float
    right: float
    low: float
    high: float


def _around(done: Sequence[Record], rule: ScoreRule) -> _Box:
    """All trials and the accuracy without penalty, with a margin."""
    mflops = [r.mflops or 0.0 for r in done]
    accuracies = [r.accuracy or 0.0 for r in done] + [rule.accuracy_full]
    across, up = 0.08 * (max(mflops) - min(mflops)) + 2, 0.08 * (max(accuracies) - min(accuracies)) + 0.005
    return _Box(min(mflops) - across, max(mflops) + across, min(accuracies) - up, min(1.005, max(accuracies) + up))


def _styled(figure: go.Figure, title: str, x: str, y: str) -> go.Figure:
    figure.update_layout(
        title=title,
        template="plotly_white",
        height=480,
        margin={"l": 60, "r": 20, "t": 60, "b": 90},
        legend={"orientation": "h", "y": -0.2},
        font={"size": 14},
    )
    figure.update_xaxes(title=x)
    figure.update_yaxes(title=y)
    return figure

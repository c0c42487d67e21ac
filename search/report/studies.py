"""The figure that compares studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.report.style import DASHES, OPERATIONS, SERIES, SYMBOLS, hover, percent, styled
from search.results.incumbent import Curves
from search.results.records import Record, finished, pareto


def studies_figure(curves: Curves, studies: Mapping[str, Sequence[Record]]) -> go.Figure:
    """Compare several studies: the best score against cost and, of those whose trials are at hand, the Pareto fronts.

    If a study evaluates untrained candidates and then trains the best, its front shows only the trained networks, and
    its predicted scores are a separate pale line.
    """
    titles = ("Pareto fronts", "best score so far") if studies else ("best score so far",)
    scores = {"row": len(titles), "col": 1}
    figure = make_subplots(rows=len(titles), cols=1, vertical_spacing=0.18, subplot_titles=titles)
    for i, (name, marks) in enumerate(curves.items()):
        color, symbol, dash = (values[i % len(values)] for values in (SERIES, SYMBOLS, DASHES))
        line = {"color": color, "dash": dash, "shape": "hv"}
        if found := studies.get(name):
            front = pareto([r for r in finished(found) if r.predicted is None] or found)
            figure.add_trace(
                go.Scatter(
                    x=[r.mflops for r in front],
                    y=[percent(r.expected) for r in front],
                    mode="lines+markers",
                    line=line,
                    marker={"symbol": symbol, "size": 9},
                    name=name,
                    legendgroup=name,
                    customdata=[hover(r) for r in front],
                    hovertemplate="%{customdata}<extra>" + name + "</extra>",
                ),
                row=1, col=1,
            )  # fmt: skip
        in_legend = bool(found)
        for kind, best in (("reached", [m.reached for m in marks]), ("predicted", [m.predicted for m in marks])):
            if all(score is None for score in best):
                continue
            figure.add_trace(
                go.Scatter(
                    x=[mark.core_hours for mark in marks],
                    y=best,
                    mode="lines+markers",
                    line=line,
                    marker={"symbol": symbol, "size": 6},
                    opacity=1.0 if kind == "reached" else 0.4,
                    name=f"{name}, {kind}" if in_legend else name,
                    legendgroup=name,
                    showlegend=not in_legend,
                ),
                **scores,
            )
            in_legend = True
    styled(figure, "Studies compared", "", "", height=760 if studies else 480)
    figure.update_xaxes(title="cost of trials (core-hours)", **scores)
    figure.update_yaxes(title="score (points)", **scores)
    if studies:
        figure.update_xaxes(title=OPERATIONS, row=1, col=1)
        figure.update_yaxes(title="holdout accuracy (%)", row=1, col=1)
    return figure

"""The figure that compares studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from search.report.style import DASHES, OPERATIONS, SERIES, SYMBOLS, hover, percent, styled
from search.results.incumbent import score_over_time
from search.results.records import Record, finished, pareto


def studies_figure(studies: Mapping[str, Sequence[Record]]) -> go.Figure:
    """Compare several studies: their Pareto fronts, and the best score against cost.

    If a study evaluates untrained candidates and then trains the best, its front shows only the trained networks, and
    its predicted scores are a separate pale line.
    """
    figure = make_subplots(
        rows=2, cols=1, vertical_spacing=0.18, subplot_titles=("Pareto fronts", "best score so far")
    )  # fmt: skip
    for i, (name, found) in enumerate(studies.items()):
        color, symbol, dash = (values[i % len(values)] for values in (SERIES, SYMBOLS, DASHES))
        line = {"color": color, "dash": dash, "shape": "hv"}
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
        marks = score_over_time(found)
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
                    name=f"{name}, {kind}",
                    legendgroup=name,
                    showlegend=False,
                ),
                row=2, col=1,
            )  # fmt: skip
    styled(figure, "Studies compared", "", "", height=760)
    figure.update_xaxes(title=OPERATIONS, row=1, col=1)
    figure.update_yaxes(title="holdout accuracy (%)", row=1, col=1)
    figure.update_xaxes(title="cost of trials (core-hours)", row=2, col=1)
    figure.update_yaxes(title="score (points)", row=2, col=1)
    return figure

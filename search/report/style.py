"""What all figures share: colours, the description of a trial, the layout."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from search.results.records import Record, predicted_text

# Okabe and Ito's colours, which colour-blind readers can distinguish.
BLUE, ORANGE, GREEN, PINK, SKY, YELLOW = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
GREY, LIGHT = "#767676", "#C8C8C8"
SERIES = (BLUE, ORANGE, GREEN, PINK, SKY, YELLOW)
"""The colours of several studies or models, in order; their symbols and dashes differ, too."""
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
OPERATIONS = "operations (MFLOPs)"


def percent(accuracy: float | None) -> float:
    """The accuracy in percent, for an axis."""
    return 100 * (accuracy or 0.0)


def short(value: Any) -> str:
    """A sampled value with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def hover(r: Record) -> str:
    """The hover text of a trial, in HTML lines."""
    lines = [f"<b>trial {r.number}</b>" + (f", score {r.score:.2f}" if r.score is not None else "")]
    if r.mflops is not None:
        lines.append(f"{r.mflops:.2f} MFLOPs")
    if r.accuracy is not None:
        lines.append(f"{percent(r.accuracy):.2f} % of the holdout")
    if r.predicted is not None:
        lines.append(f"predicted to reach {predicted_text(r)}")
    if r.latency_ms is not None:
        lines.append(f"{r.latency_ms:.2f} ms")
    return "<br>".join([*lines, *(f"{name} = {short(value)}" for name, value in r.sampled.items())])


def styled(figure: go.Figure, title: str, x: str, y: str, *, height: int = 480) -> go.Figure:
    """Add the title, axis titles and a legend below; empty axis titles are left to figures of several panels."""
    figure.update_layout(
        title={"text": title, "x": 0.02},
        template="plotly_white",
        height=height,
        margin={"l": 60, "r": 20, "t": 60, "b": 60},
        legend={"orientation": "h", "yref": "container", "y": 0.0, "yanchor": "bottom", "x": 0.0},
        font={"size": 14},
    )
    if x:
        figure.update_xaxes(title=x, automargin=True)
    if y:
        figure.update_yaxes(title=y, automargin=True)
    return figure

"""Figures of fine-grained pruning: sensitivity curves, weights before and after, parameters by layer, a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

from search.report.style import BLUE, DASHES, LIGHT, ORANGE, percent, styled

_BAR = 1.5
"""The course's limit on the error, as a multiple of the dense network's error."""


def sensitivity_figure(curves: Mapping[str, Mapping[float, float]], dense: float, images: int) -> go.Figure:
    """Accuracy against sparsity, with a line for each layer (or stage), from dark (first) to light (last).

    A dotted line marks the course's limit: 100 - 1.5 x the dense network's error, in percent.
    """
    figure = go.Figure()
    shades = sample_colorscale("Viridis", [i / max(1, len(curves) - 1) * 0.9 for i in range(len(curves))])
    for i, (name, curve) in enumerate(curves.items()):
        points = sorted({0.0: dense, **curve}.items())
        figure.add_trace(
            go.Scatter(
                x=[percent(sparsity) for sparsity, _ in points],
                y=[percent(accuracy) for _, accuracy in points],
                mode="lines+markers",
                line={"color": shades[i], "width": 1.5, "dash": DASHES[i % 3]},
                marker={"size": 5},
                name=name,
                showlegend=len(curves) <= 10,
                hovertemplate=f"<b>{name}</b><br>%{{x:.0f}} %: %{{y:.2f}} %<extra></extra>",
            )
        )
    bar = 100 - _BAR * (100 - percent(dense))
    for y, name, color in ((percent(dense), "dense", "black"), (bar, f"{_BAR:g} x the dense error", ORANGE)):
        figure.add_hline(y=y, line={"color": color, "dash": "dot"})
        line = {"color": color, "dash": "dot"}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="lines", line=line, name=name))
    return styled(figure, "Sensitivity by layer", "pruned (%)", f"accuracy (%), {images} images", height=560)


def parameters_figure(sizes: Mapping[str, int], nonzero: Mapping[str, int] | None = None) -> go.Figure:
    """The number of weights by layer; with `nonzero`, also of those that are not zero."""
    figure = go.Figure(go.Bar(x=list(range(len(sizes))), y=list(sizes.values()), name="weights",
                              marker={"color": LIGHT}, customdata=list(sizes),
                              hovertemplate="%{customdata}: %{y:,}<extra></extra>"))  # fmt: skip
    if nonzero is not None:
        left = [f"{name}: {nonzero[name] / size:.1%} left" for name, size in sizes.items()]
        figure.add_trace(go.Bar(x=list(range(len(sizes))), y=list(nonzero.values()), name="not zero",
                                marker={"color": BLUE}, customdata=left,
                                hovertemplate="%{customdata} (%{y:,})<extra></extra>"))  # fmt: skip
    figure.update_layout(barmode="overlay")
    return styled(figure, "Parameters by layer", "layer, from stem to classifier", "weights")


def distributions_figure(
    before: Mapping[str, Sequence[int]], after: Mapping[str, Sequence[int]], edges: Mapping[str, Sequence[float]]
) -> go.Figure:
    """Histograms of each layer's nonzero weights: layer name -> counts, between the layer's `edges`."""
    columns = 4
    rows = -(-len(before) // columns)
    figure = make_subplots(
        rows=rows, cols=columns, subplot_titles=[name.removesuffix(".weight") for name in before],
        horizontal_spacing=0.06, vertical_spacing=0.6 / rows,
    )  # fmt: skip
    for i, name in enumerate(before):
        middles = [(a + b) / 2 for a, b in zip(edges[name], edges[name][1:], strict=False)]
        for counts, label, color in ((before[name], "before", LIGHT), (after[name], "after", BLUE)):
            figure.add_trace(
                go.Bar(x=middles, y=list(counts), marker={"color": color}, name=label, showlegend=i == 0),
                row=i // columns + 1, col=i % columns + 1,
            )  # fmt: skip
    styled(figure, "Weights that are not zero", "", "", height=140 * rows + 120)
    figure.update_layout(barmode="overlay", bargap=0)
    figure.update_annotations(font_size=10)
    figure.update_xaxes(tickfont={"size": 9}, nticks=4)
    figure.update_yaxes(tickfont={"size": 9}, nticks=3)
    return figure


def mask_figure(kept: Sequence[Sequence[bool]], name: str) -> go.Figure:
    """The mask of one small tensor as an image: rows are filters, kept weights are dark."""
    figure = go.Figure(
        go.Heatmap(z=[[int(value) for value in row] for row in kept], colorscale=[[0, "white"], [1, BLUE]],
                   showscale=False, xgap=1, ygap=1)
    )  # fmt: skip
    figure.update_yaxes(autorange="reversed")
    return styled(figure, f"Mask of {name.removesuffix('.weight')}", "weight of the filter", "filter")

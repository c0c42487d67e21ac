"""Figures of predictions: predicted against reached accuracies."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from search.pipeline.finalists import Stop
from search.report.style import BLUE, GREY, ORANGE, SERIES, SYMBOLS, hover, percent, styled
from search.study.predictor import Prediction
from search.study.section import Observation


def predictor_figure(networks: Sequence[Observation], predictions: Sequence[Prediction]) -> go.Figure:
    """Each network's reached accuracy against the one predicted from the other networks."""
    ends = [percent(value) for value in (*(p.accuracy for p in predictions), *(final for *_, final in networks))]
    low, high = min(ends) - 0.5, max(ends) + 0.5
    figure = go.Figure()
    line = {"color": GREY, "width": 1, "dash": "dash"}
    figure.add_trace(go.Scatter(x=[low, high], y=[low, high], mode="lines", line=line, name="as predicted"))
    figure.add_trace(
        go.Scatter(
            x=[percent(p.accuracy) for p in predictions],
            y=[percent(final) for *_, final in networks],
            error_x={"type": "data", "array": [percent(p.std) for p in predictions], "color": GREY, "width": 2},
            mode="markers",
            marker={"color": BLUE, "size": 9},
            name="networks",
            customdata=[f"{mflops:.2f} MFLOPs, {seen:.1%} untrained" for mflops, seen, _ in networks],
            hovertemplate="%{customdata}<br>predicted %{x:.2f} %, reached %{y:.2f} %<extra></extra>",
        )
    )
    return styled(
        figure, "Reached against predicted by the other networks", "predicted (% of the holdout)", "reached (%)"
    )  # fmt: skip


def finalists_figure(ways: Sequence[Sequence[Stop]]) -> go.Figure:
    """Every finalist's path: the accuracy predicted after each part of the study, and the one finally reached."""
    figure = go.Figure()
    for i, way in enumerate(ways):
        predicted = [stop for stop in way if stop.record.predicted is not None]
        reached = [stop for stop in way if stop.record.predicted is None]
        color, symbol = SERIES[i % len(SERIES)], SYMBOLS[i // len(SERIES) % len(SYMBOLS)]
        figure.add_trace(
            go.Scatter(
                x=[stop.part for stop in way],
                y=[percent(stop.record.expected) for stop in way],
                error_y={
                    "type": "data",
                    "array": [percent(stop.record.predicted_std) for stop in way],
                    "color": color,
                    "width": 2,
                },
                mode="lines+markers",
                line={"color": color, "width": 1, "dash": "dot"},
                marker={"symbol": symbol, "size": 9},
                name=f"trial {way[0].record.number}" + (" (predicted)" if predicted and reached else ""),
                customdata=[hover(stop.record) for stop in way],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
        if predicted and reached:
            figure.add_trace(
                go.Scatter(
                    x=[stop.part for stop in reached],
                    y=[percent(stop.record.accuracy) for stop in reached],
                    mode="markers",
                    marker={"color": ORANGE, "size": 14, "symbol": "star"},
                    name=f"trial {way[0].record.number} (reached)",
                )
            )
    return styled(figure, "What became of the finalists", "", "accuracy on the holdout, predicted or reached (%)")

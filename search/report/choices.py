"""Figures of studies that compare methods: their accuracy and their cost."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from search.report.style import DASHES, OPERATIONS, SERIES, SYMBOLS, hover, percent, short, styled
from search.results.records import Record, finished


def choices_figure(found: Sequence[Record]) -> go.Figure:
    """Accuracy against operations, with a line for each combination of categorical choices and switches."""
    lines: dict[str, list[Record]] = {}
    for r in finished(found):
        names = [_choice(key, value) for key, value in r.sampled.items() if isinstance(value, str | bool)]
        lines.setdefault(", ".join(name for name in names if name), []).append(r)
    figure = go.Figure()
    firsts = list(dict.fromkeys(map(_first, lines)))
    for name, members in lines.items():
        members.sort(key=lambda r: r.mflops or 0.0)
        color, symbol = _style(firsts.index(_first(name)))
        figure.add_trace(
            go.Scatter(
                x=[r.mflops for r in members],
                y=[percent(r.accuracy) for r in members],
                mode="lines+markers",
                line={"color": color, "dash": "solid" if name != _first(name) else "dot"},
                marker={"symbol": symbol, "size": 9},
                name=name or "trials",
                customdata=[hover(r) for r in members],
                hovertemplate="%{customdata}<extra></extra>",
            )
        )
    return styled(figure, "Accuracy by choice", OPERATIONS, "holdout accuracy (%)", height=620)


def _style(place: int) -> tuple[str, str]:
    """The colour and symbol of the line at index `place`; colours repeat with the next symbol."""
    return SERIES[place % len(SERIES)], SYMBOLS[place // len(SERIES) % len(SYMBOLS)]


def _choice(key: str, value: str | bool) -> str:
    if isinstance(value, bool):
        return key if value else ""
    return value


def _first(name: str) -> str:
    return name.partition(", ")[0]


def variants_figure(found: Sequence[Record]) -> go.Figure:
    """Accuracy against a trial's cost, from pruning to the last epoch: a line for each trial, coloured by variant."""
    figure = go.Figure()
    done = [r for r in finished(found) if r.cost]
    variants = list(dict.fromkeys(r.sampled["variant"] for r in done))
    others = list(dict.fromkeys(_others(r) for r in done))
    for r in done:
        color, symbol = _style(variants.index(r.sampled["variant"]))
        values = ([] if r.accuracy_before is None else [r.accuracy_before]) + list(r.curve)
        figure.add_trace(
            go.Scatter(
                x=[seconds / 60 for seconds in r.cost],
                y=[percent(value) for value in values],
                mode="lines+markers",
                line={"color": color, "dash": DASHES[others.index(_others(r)) % len(DASHES)]},
                marker={"symbol": symbol},
                name=", ".join(part for part in (r.sampled["variant"], _others(r)) if part),
                customdata=[hover(r)] * len(values),
                hovertemplate="%{x:.1f} core-minutes: %{y:.2f} %<br>%{customdata}<extra></extra>",
            )
        )
    return styled(
        figure,
        "Accuracy against cost",
        "cost of the trial (core-minutes)",
        "holdout accuracy after each epoch (%)",
        height=620,
    )


def _others(r: Record) -> str:
    return ", ".join(f"{key} {short(value)}" for key, value in r.sampled.items() if key != "variant")

"""Figures of networks: operations layer by layer, channels kept, several networks side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from pruner.network.count import Layer, layers
from pruner.network.structure import GROUPS
from search.report.style import BLUE, GREY, LIGHT, OPERATIONS, SERIES, styled
from search.results.records import Dense

Widths = Mapping[str, int]


def layers_figure(kept: Widths, dense: Dense, name: str) -> go.Figure:
    """Operations by layer, of the dense network and of one with `kept` widths."""
    figure, before = go.Figure(), layers(dense.widths, dense.classes, dense.resolution)
    for found, label, color in ((before, "dense", LIGHT), (layers(kept, dense.classes, dense.resolution), name, BLUE)):
        figure.add_trace(
            go.Bar(
                x=list(range(len(found))),
                y=[layer.operations / 1e6 for layer in found],
                marker={"color": color},
                name=label,
                customdata=[f"{layer.name}, {layer.side} px, {layer.channels} channels" for layer in found],
                hovertemplate="%{customdata}: %{y:.2f} MFLOPs<extra>" + label + "</extra>",
            )
        )
    starts = {layer.stage.removeprefix("stage"): i for i, layer in reversed(list(enumerate(before)))}
    ticks = {stage: starts[stage] for stage in "234567"}  # there is no room for the first layers' names
    figure.update_layout(barmode="group", bargap=0.15)
    figure.update_xaxes(tickvals=list(ticks.values()), ticktext=list(ticks), tickangle=0)
    return styled(
        figure, f"Operations by layer: {name}", "layer (2 to 7: a stage begins)", "operations (MFLOPs)"
    )  # fmt: skip


def map_sizes_figure(kept: Widths, dense: Dense, name: str) -> go.Figure:
    """Operations by size of the output feature map, of the dense network and of one with `kept` widths.

    The figure shows why pruning 80 % of the channels does not remove 80 % of the operations: the large maps have few
    channels.
    """
    figure, before = go.Figure(), _by_side(layers(dense.widths, dense.classes, dense.resolution))
    after = _by_side(layers(kept, dense.classes, dense.resolution))
    shares = [f"{value:.1f}<br>−{1 - value / before[side]:.0%}" for side, value in after.items()]
    for values, label, color, texts in (
        (before, "dense", LIGHT, [f"{value:.1f}" for value in before.values()]),
        (after, name, BLUE, shares),
    ):
        figure.add_trace(
            go.Bar(
                x=list(values),
                y=list(values.values()),
                marker={"color": color},
                text=texts,
                textposition="outside",
                constraintext="none",
                textfont={"size": 11},
                textangle=0,
                cliponaxis=False,
                name=label,
                hovertemplate="%{x}: %{y:.2f} MFLOPs<extra>" + label + "</extra>",
            )
        )
    figure.update_layout(barmode="group", bargap=0.15)
    figure.update_xaxes(type="category")
    figure.update_yaxes(range=[0, 1.2 * max(before.values())])
    return styled(
        figure, f"Operations by map size: {name}", "side of the layer's output (pixels)", "operations (MFLOPs)"
    )  # fmt: skip


def _by_side(found: Sequence[Layer]) -> dict[str, float]:
    """Side of the output map -> MFLOPs of the layers with such an output."""
    total: dict[str, float] = {}
    for layer in found:
        total[str(layer.side)] = total.get(str(layer.side), 0.0) + layer.operations / 1e6
    return {side: value for side, value in total.items() if side != "1"}  # the classifier: negligible


def widths_figure(kept: Widths, dense: Dense, name: str) -> go.Figure:
    """The number of channels kept: hidden ones of every block, the head's, and the outputs of every stage."""
    ordered = sorted(GROUPS, key=lambda group: group.kind == "output")  # stable: hidden first, then outputs
    groups = [group.name for group in ordered]
    where = [
        f"out {group.stage.removeprefix('stage')}" if group.kind == "output" else str(group.block or group.name)
        for group in ordered
    ]
    figure = go.Figure()
    for widths, label, color in ((dense.widths, "dense", LIGHT), (kept, name, BLUE)):
        counts = [widths[group] for group in groups]
        figure.add_trace(
            go.Bar(
                x=where,
                y=counts,
                marker={"color": color},
                name=label,
                text=None if widths is dense.widths else [str(count) for count in counts],
                textposition="outside",
                constraintext="none",
                textfont={"size": 10},
                textangle=-90,
                cliponaxis=False,
                customdata=[f"{count} of {dense.widths[g]}" for count, g in zip(counts, groups, strict=True)],
                hovertemplate="%{x}: %{customdata} channels<extra>" + label + "</extra>",
            )
        )
    figure.update_layout(barmode="overlay", bargap=0.15)
    figure.update_xaxes(type="category", tickangle=-90, tickfont={"size": 11})
    return styled(figure, f"Channels kept: {name}", "block (out: of a stage)", "channels")


def models_figure(by_stage: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """MFLOPs by stage of several networks: name -> stage -> MFLOPs."""
    figure = go.Figure()
    for i, (name, stages) in enumerate(by_stage.items()):
        marker = {"color": SERIES[i % len(SERIES)], "line": {"color": GREY, "width": 1}, "pattern": {
            "shape": ("", "/", ".", "x", "-", "|")[i % 6]}}  # fmt: skip
        figure.add_trace(
            go.Bar(
                x=[stage.removeprefix("stage") for stage in stages],
                y=list(stages.values()),
                name=f"{name} ({sum(stages.values()):.1f})",
                marker=marker,
                hovertemplate="%{x}: %{y:.2f} MFLOPs<extra>" + name + "</extra>",
            )
        )
    figure.update_xaxes(type="category")
    return styled(figure, "Operations by stage", "stage", OPERATIONS)

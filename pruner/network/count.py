"""Operations and parameters of a MobileNetV2 layer by layer, from its widths alone: no torch in here."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

GRADER_RESOLUTION = 224
"""Pixels a side at which the course's grader looks and counts."""

BLOCKS_BY_STAGE = (1, 2, 3, 4, 3, 3, 1)
"""How many bottleneck blocks each of MobileNetV2's seven stages has."""
_STRIDE_BY_STAGE = (1, 2, 2, 2, 1, 2, 1)


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution with its BatchNorm and ReLU6, or the classifier."""

    name: str
    """The module, as in `features.2.conv.0`."""
    stage: str
    """stem, stage1 ... stage7, head or classifier."""
    side: int
    """Its output is a map of side x side pixels."""
    channels: int
    """Of its output."""
    operations: int
    """At 224 px, as the course's grader counts them."""
    params: int


def layers(widths: Mapping[str, int], class_count: int) -> list[Layer]:
    """The layers, first to last, of the MobileNetV2 with these widths (group name -> channels).

    What `pruner.measurement.measure.count` counts on the network itself: per output element of a convolution its multiply-adds,
    2 for BatchNorm and 1 for ReLU6; the classifier's multiply-adds and biases.
    """
    found: list[Layer] = []

    def add(name: str, stage: str, inputs: int, outputs: int, kernel: int, *, activated: bool = True) -> int:
        weights = inputs * outputs * kernel * kernel
        operations = (weights + (3 if activated else 2) * outputs) * side * side
        found.append(Layer(name, stage, side, outputs, operations, weights + 2 * outputs))
        return outputs

    side, block = GRADER_RESOLUTION // 2, 1
    channels = add("features.0", "stem", 3, widths["stage1.hidden.1"], 3)
    for number, (blocks, stride) in enumerate(zip(BLOCKS_BY_STAGE, _STRIDE_BY_STAGE, strict=True), start=1):
        stage = f"stage{number}"
        for place in range(blocks):
            name, hidden, step = f"features.{block}.conv", widths[f"{stage}.hidden.{block}"], 0
            if number > 1:  # the first block has no expansion
                add(f"{name}.0", stage, channels, hidden, 1)
                step = 1
            if place == 0:
                side //= stride
            add(f"{name}.{step}", stage, 1, hidden, 3)  # depthwise
            channels = add(f"{name}.{step + 1}", stage, hidden, widths[f"{stage}.output"], 1, activated=False)
            block += 1
    channels = add("features.18", "head", channels, widths["head"], 1)
    weights = (channels + 1) * class_count
    return [*found, Layer("classifier.1", "classifier", 1, class_count, weights, weights)]


def stage_of(name: str) -> str:
    """The stage (as in `Layer.stage`) of a module or weight of that name."""
    top, _, rest = name.partition(".")
    if top == "classifier":
        return "classifier"
    block = int(rest.partition(".")[0])
    ends = [0, *accumulate(BLOCKS_BY_STAGE)]
    return ("stem", *(f"stage{i}" for i in range(1, 8)), "head")[bisect_left(ends, block)]


def count_of(widths: Mapping[str, int], class_count: int) -> tuple[float, int]:
    """(millions of operations at 224 px, parameters) of the MobileNetV2 with these widths, without building it."""
    found = layers(widths, class_count)
    return sum(layer.operations for layer in found) / 1e6, sum(layer.params for layer in found)

"""Operations and parameters of a MobileNetV2, layer by layer, from its widths alone. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pruner.network.structure import BLOCKS, HEAD, STEM

GRADER_RESOLUTION = 224
"""Pixels a side at which the course's grader evaluates and counts."""


class Layer(NamedTuple):
    """A convolution with its BatchNorm and ReLU6, or the classifier."""

    name: str
    """The module's name, such as `features.2.conv.0`."""
    stage: str
    """stem, stage1 ... stage7, head or classifier."""
    side: int
    """The output feature map has side x side pixels."""
    channels: int
    """Output channels."""
    operations: int
    """As the course's grader counts them."""
    params: int


def layers(widths: Mapping[str, int], class_count: int, resolution: int = GRADER_RESOLUTION) -> list[Layer]:
    """The layers, first to last, of the MobileNetV2 with these widths (group name -> channels).

    `resolution`: pixels a side of the images, as the grader has them unless it is given.

    The counts equal those that `pruner.measurement.measure.count` takes on the network itself: per output element of a
    convolution, its multiply-adds plus 2 for BatchNorm and 1 for ReLU6; for the classifier, multiply-adds and biases.
    """
    found: list[Layer] = []

    def add(name: str, stage: str, inputs: int, outputs: int, kernel: int, *, activated: bool = True) -> int:
        weights = inputs * outputs * kernel * kernel
        operations = (weights + (3 if activated else 2) * outputs) * side * side
        found.append(Layer(name, stage, side, outputs, operations, weights + 2 * outputs))
        return outputs

    side = -(-resolution // 2)
    channels = add(STEM, "stem", 3, widths[BLOCKS[0].hidden], 3)
    for block in BLOCKS:
        hidden = widths[block.hidden]
        if block.expansion:
            add(block.expansion, block.stage, channels, hidden, 1)
        side = -(-side // block.stride)  # a convolution's padding rounds up
        add(block.depthwise, block.stage, 1, hidden, 3)
        channels = add(block.projection, block.stage, hidden, widths[block.output], 1, activated=False)
    channels = add(HEAD, "head", channels, widths["head"], 1)
    weights = (channels + 1) * class_count
    return [*found, Layer("classifier.1", "classifier", 1, class_count, weights, weights)]


def mflops_by_stage(widths: Mapping[str, int], class_count: int) -> dict[str, float]:
    """Stage -> MFLOPs of its layers, first to last; see `layers`."""
    found: dict[str, float] = {}
    for layer in layers(widths, class_count):
        found[layer.stage] = found.get(layer.stage, 0.0) + layer.operations / 1e6
    return found


def count_of(widths: Mapping[str, int], class_count: int, resolution: int = GRADER_RESOLUTION) -> tuple[float, int]:
    """(MFLOPs, parameters) of the MobileNetV2 with these widths, without building it; see `layers`."""
    found = layers(widths, class_count, resolution)
    return sum(layer.operations for layer in found) / 1e6, sum(layer.params for layer in found)

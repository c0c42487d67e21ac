"""Translate timm's names of a MobileNetV2's weights to torchvision's.

timm's `mobilenetv2_035`, `050`, `075`, `100` and `140` have torchvision's layers in torchvision's order, with the same
paddings, activations and BatchNorm settings; only the names differ:

| timm | torchvision |
|---|---|
| `conv_stem`, `bn1` | `features.0.0`, `features.0.1` |
| `blocks.0.0`: `conv_dw`, `bn1`, `conv_pw`, `bn2` | `features.1.conv`: `0.0`, `0.1`, `1`, `2` |
| `blocks.S.B`, other stages: `conv_pw`, `bn1`, `conv_dw`, `bn2`, `conv_pwl`, `bn3` | `features.N.conv`: `0.0`, `0.1`, `1.0`, `1.1`, `2`, `3`; N counts blocks |
| `conv_head`, `bn2` | `features.18.0`, `features.18.1` |
| `classifier` | `classifier.1` |

(timm 1.0.31, `timm/models/efficientnet.py`.) `mobilenetv2_110d` and `120d` have more blocks in a stage.
"""  # noqa: E501

from __future__ import annotations

import re
from collections.abc import Iterable

from pruner.network.structure import BLOCKS_BY_STAGE

TIMM_STEM = "conv_stem.weight"
"""timm's name of the first weight."""

_ENDS = {"conv_stem": "features.0.0", "bn1": "features.0.1", "conv_head": "features.18.0", "bn2": "features.18.1",
         "classifier": "classifier.1"}  # fmt: skip
_FIRST = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
_OTHERS = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}


def timm_difference(names: Iterable[str]) -> str | None:
    """How the number of blocks in each stage differs from MobileNetV2's; None if it does not."""
    blocks = {match[0] for name in names if (match := re.match(r"blocks\.(\d+)\.\d+(?=\.)", name))}
    counts = [sum(block.startswith(f"blocks.{stage}.") for block in blocks) for stage in range(len(BLOCKS_BY_STAGE))]
    if sum(counts) == len(blocks) and tuple(counts) == BLOCKS_BY_STAGE:
        return None
    return (
        f"its stages have {counts} blocks, torchvision's have {list(BLOCKS_BY_STAGE)}: it is timm's deeper "
        "mobilenetv2_110d or 120d, or another network"
    )


def torchvision_name(name: str) -> str:
    """torchvision's name for one of timm's; names that timm's MobileNetV2 does not use are returned unchanged."""
    layer, _, leaf = name.rpartition(".")
    if layer in _ENDS:
        return f"{_ENDS[layer]}.{leaf}"
    if match := re.fullmatch(r"blocks\.(\d+)\.(\d+)\.(\w+)", layer):
        stage, block, part = int(match[1]), int(match[2]), match[3]
        inside = (_FIRST if stage == 0 else _OTHERS).get(part)
        if inside:
            return f"features.{1 + sum(BLOCKS_BY_STAGE[:stage]) + block}.conv.{inside}.{leaf}"
    return name

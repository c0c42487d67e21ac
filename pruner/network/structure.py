"""MobileNetV2's structure as data: blocks, groups of channels, and the layers that read each group.

Sandler et al. 2018 (arXiv 1801.04381), in torchvision's layout: `features.0` is the stem, `features.1` to `features.17`
are bottleneck blocks, `features.18` is the head. Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

STEM, HEAD, CLASSIFIER = "features.0", "features.18", "classifier"
STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5", "stage6", "stage7", "head")
"""MobileNetV2's seven bottleneck stages and its head, the 1x1 convolution before the classifier."""
BLOCKS_BY_STAGE = (1, 2, 3, 4, 3, 3, 1)
"""The number of bottleneck blocks in each of the seven stages."""
_STRIDE_BY_STAGE = (1, 2, 2, 2, 1, 2, 1)


@dataclass(frozen=True, slots=True)
class Block:
    """One of the 17 bottleneck blocks."""

    number: int
    """Its index in `features`, from 1."""
    name: str
    """`features.<number>`."""
    stage: str
    stride: int
    """The stride of its depthwise convolution."""
    residual: bool
    """Is its input added to its output?"""
    expansion: str | None
    """The module of its 1x1 convolution with BatchNorm and ReLU6; None for the first block, which has no expansion."""
    depthwise: str
    """The module of its 3x3 convolution with BatchNorm and ReLU6."""
    projection: str
    """Its linear 1x1 convolution, without ReLU6."""
    norm: str
    """The projection's BatchNorm."""
    hidden: str
    """The group of its hidden channels."""
    output: str
    """The group of its output channels."""


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer that reads a group's channels."""

    layer: str
    """A 1x1 convolution, or the classifier."""
    norm: str | None
    """The BatchNorm after it; None for the classifier."""


@dataclass(frozen=True, slots=True)
class Group:
    """Channels that can only be pruned together, because layers share them."""

    name: str
    stage: str
    kind: str
    """`hidden` (a block's expanded width), `output` (a stage's width, joined by residual additions) or `head`."""
    block: int | None
    """The number of the block whose hidden channels these are."""
    root: str
    """The convolution whose output channels define the group's channel indices."""
    blocks: tuple[str, ...]
    """The modules of `features` that change inside when this group is pruned."""
    residual: bool
    """Does it include a block with a residual connection?"""
    readers: tuple[Reader, ...]
    """The layers that read its channels; for an `output` group, one after each of the stage's blocks."""


def _blocks() -> tuple[Block, ...]:
    found: list[Block] = []
    for stage, count, stride in zip(STAGES, BLOCKS_BY_STAGE, _STRIDE_BY_STAGE, strict=False):
        for place in range(count):
            number = len(found) + 1
            conv = f"features.{number}.conv"
            modules = [f"{conv}.{index}" for index in range(3 if number == 1 else 4)]
            found.append(
                Block(
                    number=number,
                    name=f"features.{number}",
                    stage=stage,
                    stride=stride if place == 0 else 1,
                    residual=place > 0,
                    expansion=None if number == 1 else modules[0],
                    depthwise=modules[-3],
                    projection=modules[-2],
                    norm=modules[-1],
                    hidden=f"{stage}.hidden.{number}",
                    output=f"{stage}.output",
                )
            )
    return tuple(found)


BLOCKS = _blocks()
"""All bottleneck blocks, first to last."""


def reader_behind(block: Block) -> Reader:
    """The layer that reads a block's output: the next block's expansion, or the head."""
    following = next((later.expansion for later in BLOCKS if later.number == block.number + 1), HEAD)
    return Reader(f"{following}.0", f"{following}.1")


def _groups() -> tuple[Group, ...]:
    found: list[Group] = []
    for stage in STAGES[:-1]:
        blocks = [block for block in BLOCKS if block.stage == stage]
        for block in blocks:
            # The first block has no expansion: its hidden channels are the stem's, so they form one group.
            root = f"{block.expansion or STEM}.0"
            inside = (block.name,) if block.expansion else (STEM, block.name)
            readers = (Reader(block.projection, block.norm),)
            found.append(
                Group(block.hidden, stage, "hidden", block.number, root, inside, block.residual, readers)
            )  # fmt: skip
        names, behind = tuple(block.name for block in blocks), tuple(reader_behind(block) for block in blocks)
        found.append(
            Group(blocks[0].output, stage, "output", None, blocks[0].projection, names, len(blocks) > 1, behind)
        )
    head = Group("head", "head", "head", None, f"{HEAD}.0", (HEAD,), False, (Reader(f"{CLASSIFIER}.1", None),))
    return (*found, head)


GROUPS = _groups()
"""All groups of channels that can be pruned, from the stem to the head: 17 hidden, 7 outputs, the head."""

GROUP = {group.name: group for group in GROUPS}

MODULES = {STEM: "stem", **{block.name: block.stage for block in BLOCKS}, HEAD: "head", CLASSIFIER: "classifier"}
"""Module -> the stage of its weights, in the order of execution."""


def module_of(weight: str) -> str:
    """The entry of MODULES that contains the layer or weight."""
    return next(module for module in MODULES if f"{weight}.".startswith(f"{module}."))

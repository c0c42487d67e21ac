"""Learning from the dense network's logits, found once for every training image and its mirror image.

Hinton, Vinyals & Dean 2015. The logits of the course's network have a standard deviation of 7.5, so its probabilities
are almost all 0 or 1; only at a high temperature do they say more than the labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from pruner.data.batches import normalized, resized_as_pil
from pruner.data.datasets import Split
from pruner.system.cores import on_cores

_BATCH = 32
_RIGHT = 0.05
"""A twentieth of the logits' spread: a temperature of 4 makes nothing of it."""


@dataclass(frozen=True, slots=True)
class Teacher:
    """What the dense network says of the training images."""

    logits: Tensor
    """float32 (images, 1 or 2, classes): of each image as it is, and mirrored where the data's classes allow it."""

    def of(self, which: Tensor, mirrored: Tensor) -> Tensor:
        """Logits (batch, classes) of some images."""
        return self.logits[which, mirrored.long()]


def logits_by_chunk(
    model: nn.Module, split: Split, *, resolution: int, mirrors: bool, half: bool = False, start: int = 0,
    chunk: int = 256,
) -> Iterator[Tensor]:  # fmt: skip
    """Logits of the images from `start` on, (up to `chunk`, 1 or 2, classes) float32 at a time, in order.

    `model` is in eval mode, on the images' device. `half`: compute in bfloat16, see `half_is_right`.
    """
    with torch.inference_mode():
        folded = _folded(model)
    for at in range(start, len(split), chunk):
        part = split.images[at : at + chunk]
        both = [part, part.flip(-1)] if mirrors else [part]
        with torch.inference_mode():  # not around the loop: whoever takes the chunks would be in it, too
            parts = [few for images in both for few in torch.split(images, _BATCH)]
            found = torch.cat(list(on_cores(lambda few: _logits(folded, few, resolution, half), parts)))
        split.was_read(len(part))
        yield torch.stack(found.chunk(len(both)), 1)


def half_is_right(model: nn.Module, split: Split, *, resolution: int) -> bool:
    """Whether bfloat16 changes the logits of some images by at most _RIGHT of their standard deviation."""
    with torch.inference_mode():
        folded = _folded(model)
        exact, near = (_logits(folded, split.images[:_BATCH], resolution, half) for half in (False, True))
    return bool((exact - near).square().mean().sqrt() <= _RIGHT * exact.std())


def _folded(model: nn.Module) -> nn.Module:
    """A copy that does the same with BatchNorm inside the convolutions: less to do, and equal to rounding."""
    return fuse(model).to(memory_format=torch.channels_last)


def _logits(model: nn.Module, images: Tensor, resolution: int, half: bool) -> Tensor:
    inputs = normalized(resized_as_pil(images, resolution)).contiguous(memory_format=torch.channels_last)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=half):
        outputs: Tensor = model(inputs).float()
    return outputs


def distillation_loss(outputs: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """temperature * KL(softmax(wanted / temperature) || softmax(outputs / temperature)), the mean over the batch.

    Its gradient is of one size with cross-entropy's at any temperature that matters here; with the square of the
    temperature, which is usual, it would grow with it.
    """
    theirs, ours = F.log_softmax(wanted / temperature, 1), F.log_softmax(outputs / temperature, 1)
    return temperature * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)

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

from pruner.data import Split, normalized, resized_as_pil


@dataclass(frozen=True, slots=True)
class Teacher:
    """What the dense network says of the training images."""

    logits: Tensor
    """float32 (images, 1 or 2, classes): of each image as it is, and mirrored where the data's classes allow it."""

    def of(self, which: Tensor, mirrored: Tensor) -> Tensor:
        """Logits (batch, classes) of some images."""
        return self.logits[which, mirrored.long()]


def logits_by_chunk(
    model: nn.Module, split: Split, *, resolution: int, mirrors: bool, start: int = 0, chunk: int = 256
) -> Iterator[Tensor]:
    """Logits of the images from `start` on, (up to `chunk`, 1 or 2, classes) float32 at a time, in order.

    `model` is in eval mode, on the images' device.
    """
    for at in range(start, len(split), chunk):
        part = split.images[at : at + chunk]
        both = [part, part.flip(-1)] if mirrors else [part]
        with torch.inference_mode():
            found = [
                torch.cat([model(normalized(resized_as_pil(few, resolution))) for few in torch.split(images, 32)])
                for images in both
            ]
        yield torch.stack(found, 1).float()


def distillation_loss(outputs: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """temperature * KL(softmax(wanted / temperature) || softmax(outputs / temperature)), the mean over the batch.

    Its gradient is of one size with cross-entropy's at any temperature that matters here; with the square of the
    temperature, which is usual, it would grow with it.
    """
    theirs, ours = F.log_softmax(wanted / temperature, 1), F.log_softmax(outputs / temperature, 1)
    return temperature * F.kl_div(ours, theirs, reduction="batchmean", log_target=True)

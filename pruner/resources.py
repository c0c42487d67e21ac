"""What compressing a network needs beside its recipe, computed on demand and kept in memory: for notebooks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.channels.importance import NEED_IMAGES, Scores, score_channels
from pruner.channels.plan import ChannelPlan
from pruner.channels.reconstruct import Targets, reconstruct, record_targets
from pruner.data.datasets import Dataset, Split
from pruner.errors import InputError
from pruner.system.seeds import mix
from pruner.training.distill import Teacher, logits_by_chunk
from pruner.weights.masks import Masks, score_weights

Told = Callable[[int], None]
"""Called with n after every n images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InMemory:
    """The resources of `pruner.compression` for one data set."""

    data: Dataset
    """On the device of training."""
    resolution: int = 224
    """Pixels a side of the images that the network is for."""
    dense: MobileNetV2 | None = None
    """The teacher of recipes that distill."""
    calibration_images: int = 128
    """Training images whose gradients rank channels and weights."""
    reconstruction_images: int = 512
    """Training images for reconstruction, and for the importance `obs`."""
    seed: int = 0
    _scores: dict[tuple[str, int], Scores] = field(default_factory=dict)
    _kept: list[object] = field(default_factory=list)
    """The networks whose scores are kept, and the teacher: an `id` must not be given out again."""

    def ranking_images(self, importance: str) -> Split:
        """The training images by which that importance ranks channels."""
        count = self.reconstruction_images if importance == "obs" else self.calibration_images
        return calibration(self.data.train, count if importance in NEED_IMAGES else 0, self.seed)

    def scores(self, importance: str, model: MobileNetV2, on_images: Told | None = None) -> Scores:
        """The network's channel scores; each network is scored once."""
        key = (importance, id(model))
        if key not in self._scores:
            images = self.ranking_images(importance)
            self._scores[key] = score_channels(
                model, importance, images, resolution=self.resolution, seed=self.seed, on_images=on_images
            )
            self._kept.append(model)
        return self._scores[key]

    def weight_scores(self, importance: str, model: nn.Module, on_images: Told | None = None) -> dict[str, Tensor]:
        """The importance of each weight, see `pruner.weights.masks.score_weights`."""
        images = calibration(self.data.train, self.calibration_images, self.seed)
        return score_weights(model, importance, images, resolution=self.resolution, on_images=on_images)

    def targets(self, model: MobileNetV2, on_images: Told | None = None) -> Targets:
        """What a network computes at sampled places of the reconstruction's images."""
        images = self._for_reconstruction()
        seen = copy.deepcopy(model).to(images.images.device)
        return record_targets(seen, images, resolution=self.resolution, seed=self.seed, on_images=on_images)

    def reconstruct(
        self, model: MobileNetV2, targets: Targets, plan: ChannelPlan, masks: Masks | None = None,
        on_images: Told | None = None,
    ) -> None:  # fmt: skip
        """Refit `model` in place, see `pruner.channels.reconstruct`."""
        images = self._for_reconstruction()
        reconstruct(
            model.to(images.images.device), targets, plan, images,
            masks=masks, resolution=self.resolution, seed=self.seed, on_images=on_images,
        )  # fmt: skip

    def _for_reconstruction(self) -> Split:
        """The training images for reconstruction."""
        return calibration(self.data.train, self.reconstruction_images, self.seed)

    def teacher(self) -> Teacher:
        """The dense network's logits, computed once.

        Raises:
            InputError: No dense network was given.
        """
        found = next((kept for kept in self._kept if isinstance(kept, Teacher)), None)
        if found is None:
            if self.dense is None:
                raise InputError(
                    "distill_temperature: learning from the dense network needs that network: InMemory(dense=...)"
                )
            model, train = copy.deepcopy(self.dense).eval().to(self.data.train.images.device), self.data.train
            chunks = logits_by_chunk(model, train, resolution=self.resolution, mirrors=self.data.mirrors)
            found = Teacher(torch.cat(list(chunks)))
            self._kept.append(found)
        return found


def calibration(train: Split, count: int, seed: int) -> Split:
    """`count` training images chosen by the seed."""
    return train.drawn(count, mix(seed, 0xCA11))

"""One network through a recipe."""

from __future__ import annotations

import torch
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.channels.plan import apply_plan
from pruner.compression import compress, plan_channels
from pruner.data.datasets import Dataset
from pruner.recipe import Prune, Recipe
from pruner.resources import InMemory
from pruner.train import Training
from pruner.training.average import recalibrate_batchnorm


def test_what_is_neither_reconstructed_nor_trained_gets_statistics_of_its_own(
    dense: MobileNetV2, data: Dataset
) -> None:
    resources = InMemory(data=data, resolution=32, reconstruction_images=64)
    train = Training(epochs=0, resolution=32, bn_recalibration_images=128)

    def weights(**prune: object) -> dict[str, torch.Tensor]:
        return compress(dense, Recipe(prune=Prune(**prune), train=train), resources).state_dict()  # type: ignore[arg-type]

    cut = {"importance": "l1", "global_pruning_ratio": 0.5}
    plan = plan_channels(dense, Prune(**cut), resources)  # type: ignore[arg-type]
    expected = apply_plan(dense, plan)
    before = {name: value.clone() for name, value in expected.state_dict().items()}
    recalibrate_batchnorm(expected, data.train, count=128, resolution=32)
    found = weights(**cut)
    torch.testing.assert_close(found, expected.state_dict(), rtol=0, atol=0)
    assert not torch.equal(found["features.18.1.running_mean"], before["features.18.1.running_mean"])
    torch.testing.assert_close(weights(), dense.state_dict(), rtol=0, atol=0)  # nothing is pruned

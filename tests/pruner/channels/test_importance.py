"""Channel scores: by every criterion, and equal to their definitions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.channels.importance import NEED_IMAGES, score_channels
from pruner.data.batches import normalized, resized_as_pil
from pruner.data.datasets import Dataset, Split
from pruner.errors import InputError
from pruner.network.mobilenet import widths
from pruner.recipe import IMPORTANCES


@pytest.fixture(scope="module")
def few(data: Dataset) -> Split:
    return data.train.first(12)  # more than one batch


def gradients(model: MobileNetV2, split: Split, name: str) -> torch.Tensor:
    model.zero_grad()
    images = normalized(resized_as_pil(split.images, 32))
    F.cross_entropy(model(images), split.labels, reduction="sum").backward()
    gradient = model.get_parameter(name).grad
    assert gradient is not None
    model.zero_grad()
    return gradient


@pytest.mark.parametrize("importance", IMPORTANCES)
def test_every_channel_gets_a_score_and_the_network_is_left_alone(
    narrow: MobileNetV2, few: Split, importance: str
) -> None:
    before = {name: value.clone() for name, value in narrow.state_dict().items()}
    scores = score_channels(narrow, importance, few, resolution=32)
    assert {name: len(values) for name, values in scores.items()} == widths(narrow)
    for name, values in scores.items():
        assert torch.isfinite(values).all()
        if importance != "bn_scale":  # equal for all channels of a network that was never trained
            assert values.std() > 0, name
    assert all(torch.equal(value, before[name]) for name, value in narrow.state_dict().items())
    assert all(parameter.grad is None for parameter in narrow.parameters())
    again = score_channels(narrow, importance, few, resolution=32)
    assert all(torch.equal(again[name], values) for name, values in scores.items())


def test_l1_of_the_head_is_the_mean_norm_of_the_layers_in_its_group(dense: MobileNetV2) -> None:
    conv, norm = dense.features[18][0].weight, dense.features[18][1].weight
    layers = [conv.abs().sum((1, 2, 3)), norm.abs(), dense.classifier[1].weight.abs().sum(0)]
    expected = torch.stack(layers).mean(0)
    torch.testing.assert_close(score_channels(dense, "l1")["head"], expected.detach())


def test_taylor_sums_gradients_over_all_images(dense: MobileNetV2, few: Split) -> None:
    conv, linear = "features.18.0.weight", "classifier.1.weight"
    by_conv = (dense.get_parameter(conv) * gradients(dense, few, conv)).abs().sum((1, 2, 3))
    by_linear = (dense.get_parameter(linear) * gradients(dense, few, linear)).abs().sum(0)
    expected = ((by_conv + by_linear) / 2).detach()
    measured = score_channels(dense, "taylor", few, resolution=32)["head"]
    torch.testing.assert_close(measured, expected, rtol=1e-3, atol=0)


def test_hessian_is_a_mean_over_images_not_the_last_one(dense: MobileNetV2, few: Split) -> None:
    names = ("features.18.0.weight", "features.18.1.weight", "classifier.1.weight")
    squared = [torch.zeros_like(dense.get_parameter(name)) for name in names]
    for i in range(len(few)):
        one = Split(few.images[i : i + 1], few.labels[i : i + 1])
        for total, name in zip(squared, names, strict=True):
            total += gradients(dense, one, name).square() / len(few)
    conv, norm, linear = (dense.get_parameter(n).square() * s for n, s in zip(names, squared, strict=True))
    expected = ((conv.sum((1, 2, 3)) + norm + linear.sum(0)) / 3).detach()
    measured = score_channels(dense, "hessian", few, resolution=32)["head"]
    torch.testing.assert_close(measured, expected, rtol=1e-3, atol=0)


def test_random_follows_its_seed(dense: MobileNetV2) -> None:
    first, second = (score_channels(dense, "random", seed=seed)["head"] for seed in (1, 2))
    assert not torch.equal(first, second)


def test_missing_images_and_unknown_names_are_refused(dense: MobileNetV2) -> None:
    for importance in NEED_IMAGES:
        with pytest.raises(InputError, match="calibration images"):
            score_channels(dense, importance)
    with pytest.raises(InputError, match="tailor"):
        score_channels(dense, "tailor")

"""Training: interrupted or not, the same weights."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.data import Dataset
from pruner.errors import Diverged, InputError
from pruner.fine_tune import fine_tune, make_optimizer, schedule
from pruner.measure import accuracy, drop_last, evaluate, measure
from pruner.mobilenet import fresh
from pruner.recipe import Tune

SHORT: dict[str, Any] = {"epochs": 3, "images_per_epoch": 96, "batch": 32, "resolution": 32, "shift": 1, "clip": 5.0}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_run_equals_an_uninterrupted_one(dense: MobileNetV2, data: Dataset, optimizer: str) -> None:
    tune = Tune(optimizer=optimizer, learning_rate=0.005, label_smoothing=0.1, **SHORT)
    whole = copy.deepcopy(dense)
    torch.manual_seed(1)
    losses = [epoch.loss for epoch in fine_tune(whole, data.train, tune, mirrors=False)]

    first = copy.deepcopy(dense)
    torch.manual_seed(2)  # what else drew random numbers in the process must not matter
    epoch = next(fine_tune(first, data.train, tune, mirrors=False))
    file = io.BytesIO()
    torch.save(epoch.state, file)
    file.seek(0)
    second = copy.deepcopy(dense)
    state = torch.load(file, weights_only=True)
    rest = [e.loss for e in fine_tune(second, data.train, tune, mirrors=False, resume=state)]

    assert losses == [epoch.loss, *rest]
    for (name, a), b in zip(whole.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_training_learns_and_reports(data: Dataset) -> None:
    model, seen = fresh(10, 0), []
    tune = Tune(
        optimizer="adamw", learning_rate=0.004, epochs=4, batch=32, resolution=32, images_per_epoch=512, shift=0
    )
    epochs = list(fine_tune(model, data.train, tune, mirrors=False, on_images=seen.append))
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
    assert sum(seen) == sum(epoch.images for epoch in epochs) == 4 * 512
    assert epochs[-1].loss < 0.6 * epochs[0].loss
    assert epochs[-1].accuracy > 2 * epochs[0].accuracy
    measured = measure(model, data.test, resolution=32)
    assert measured.images == 397
    assert measured.mflops == pytest.approx(318.969, abs=1e-3)


def test_the_schedule_rises_then_falls_to_zero() -> None:
    rates = [schedule(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == rates[10] == 1.0
    assert 0 < rates[-1] < 0.001
    assert 0 < rates[0] < 0.1
    assert schedule(0, 1, 0.0) == 1.0


def test_weight_decay_spares_batchnorm_and_biases(dense: MobileNetV2) -> None:
    decayed, free = make_optimizer(copy.deepcopy(dense), Tune(weight_decay=0.01)).param_groups
    assert {p.dim() for p in decayed["params"]} == {2, 4}
    assert {p.dim() for p in free["params"]} == {1}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0.0)


def test_a_loss_that_is_not_a_number_is_told(dense: MobileNetV2, data: Dataset) -> None:
    model = copy.deepcopy(dense)
    with torch.no_grad():
        model.classifier[1].weight.fill_(float("nan"))
    with pytest.raises(Diverged, match="epoch 1"):
        next(fine_tune(model, data.train, Tune(**SHORT), mirrors=False))


def test_no_epochs_leave_the_network_as_it_is(dense: MobileNetV2, data: Dataset) -> None:
    model = copy.deepcopy(dense)
    assert list(fine_tune(model, data.train, Tune(epochs=0), mirrors=False)) == []
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), dense.parameters(), strict=True))


def test_evaluation_tells_right_from_wrong_image_by_image(dense: MobileNetV2, data: Dataset) -> None:
    split = data.test.first(100)
    right = evaluate(dense, split, resolution=32, batch=7)
    with torch.no_grad():
        constant = copy.deepcopy(dense)
        constant.classifier[1].weight.zero_()
        constant.classifier[1].bias.copy_(torch.arange(10) == 3)
    assert torch.equal(evaluate(constant, split, resolution=32), split.labels == 3)
    assert torch.equal(right, evaluate(dense, split, resolution=32, batch=100))
    assert len(drop_last(right)) == 64
    assert accuracy(torch.tensor([True, False, True, True])) == 0.75


@pytest.mark.parametrize(
    "bad", [{"optimizer": "lion"}, {"batch": 0}, {"learning_rate": -1.0}, {"momentum": 1.0}, {"epochs": -1}]
)
def test_bad_training_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        Tune(**bad)

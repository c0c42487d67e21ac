"""Training: interrupted or not, the same weights."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.data.datasets import Dataset
from pruner.errors import Diverged, InputError
from pruner.measurement.measure import accuracy, drop_last, evaluate, measure
from pruner.network.mobilenet import fresh
from pruner.train import Phase, Training
from pruner.training.average import Average, recalibrate_batchnorm
from pruner.training.distill import Teacher
from pruner.training.fine_tune import epoch_images, fine_tune, schedule
from pruner.training.step import make_optimizer

SHORT: dict[str, Any] = {
    "epochs": 3,
    "images_per_epoch": 96,
    "batch_size": 32,
    "resolution": 32,
    "random_shift": 1,
    "grad_clip_norm": 5.0,
}


PHASES = (
    Phase(epochs=2, resolution=32, batch_size=16, images_per_epoch=48),
    Phase(epochs=2, resolution=48, lr_scale=0.5, schedule="linear"),
)
FROZEN = (
    Phase(resolution=32),
    Phase(epochs=2, resolution=48, lr_scale=0.02, frozen_statistics=True),
    Phase(resolution=32, images_per_epoch=48),
)


@pytest.mark.parametrize(
    "extra",
    [
        {"optimizer": "sgd"},
        {"optimizer": "adamw"},
        {"phases": PHASES, "ema_decay": 0.9, "bn_recalibration_images": 64},
        {"phases": PHASES, "distill_temperature": 4.0},
        {"phases": FROZEN, "ema_decay": 0.9, "bn_recalibration_images": 64},
    ],
    ids=["sgd", "adamw", "phases, averaged", "phases, distilled", "frozen, averaged"],
)
def test_a_run_resumed_after_any_epoch_equals_an_uninterrupted_one(
    small: MobileNetV2, data: Dataset, extra: dict[str, Any]
) -> None:
    tune = Training(**{**SHORT, "learning_rate": 0.005, "label_smoothing": 0.1, **extra})
    generator = torch.Generator().manual_seed(0)
    options = {"mirrors": True, "teacher": Teacher(torch.randn(len(data.train), 2, 10, generator=generator))}
    whole = copy.deepcopy(small)
    torch.manual_seed(1)
    losses, states = [], []
    for epoch in fine_tune(whole, data.train, tune, **options):
        losses.append(epoch.loss)
        file = io.BytesIO()
        torch.save(epoch.state, file)
        states.append(file)
    assert len(losses) == tune.total_epochs
    for done, file in enumerate(states, start=1):
        torch.manual_seed(2)  # what else drew random numbers in the process must not matter
        file.seek(0)
        second = copy.deepcopy(small)
        state = torch.load(file, weights_only=True)
        assert [e.loss for e in fine_tune(second, data.train, tune, resume=state, **options)] == losses[done:]
        for (name, a), b in zip(whole.state_dict().items(), second.state_dict().values(), strict=True):
            assert torch.equal(a, b), (done, name)


def test_phases_follow_each_other_as_they_are_asked_for(small: MobileNetV2, data: Dataset) -> None:
    tune = Training(**{**SHORT, "phases": PHASES, "learning_rate": 0.01})
    assert epoch_images(data.train, tune) == [48, 48, 96, 96]
    model, sides = copy.deepcopy(small), []
    model.features.register_forward_pre_hook(lambda _, inputs: sides.append(tuple(inputs[0].shape)))
    epochs = list(fine_tune(model, data.train, tune, mirrors=False))
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]
    assert [epoch.images for epoch in epochs] == [48, 48, 96, 96]
    assert sides == 6 * [(16, 3, 32, 32)] + 6 * [(32, 3, 48, 48)]
    assert [part.learning_rate for part in tune.parts] == [0.01, 0.005]


def test_the_average_is_what_is_kept(small: MobileNetV2, data: Dataset) -> None:
    model = copy.deepcopy(small)
    tune = Training(
        **{**SHORT, "ema_decay": 0.9, "bn_recalibration_images": 64, "learning_rate": 0.01, "schedule": "constant"}
    )
    for epoch in fine_tune(model, data.train, tune, mirrors=False):
        live, kept = copy.deepcopy(epoch.state["model"]), copy.deepcopy(epoch.state["average"])
    for place, weight in enumerate(model.parameters()):
        assert torch.equal(weight, kept[str(place)])
    assert not torch.equal(model.get_parameter("classifier.1.weight"), live["classifier.1.weight"])


def test_an_average_by_hand() -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = Average(layer, 0.8)
    by_hand = layer.weight.detach().clone()
    for number, value in enumerate((1.0, 2.0, 5.0, -3.0), start=1):
        nn.init.constant_(layer.weight, value)
        average.follow()
        decay = min(0.8, number / (number + 9))
        by_hand = decay * by_hand + (1 - decay) * value
    average.put_in()
    assert torch.allclose(layer.weight, by_hand)


@pytest.mark.parametrize("bn_recalibration_images", [0, 64])
def test_a_network_trained_at_another_resolution_ends_with_the_statistics_of_its_own(
    bn_recalibration_images: int, small: MobileNetV2, data: Dataset
) -> None:
    tune = Training(
        **{**SHORT, "resolution": 48, "learning_rate": 0.01, "bn_recalibration_images": bn_recalibration_images}
    )
    model = copy.deepcopy(small)
    epochs = list(fine_tune(model, data.train, tune, mirrors=False, resolution=32))
    assert {epoch.resolution for epoch in epochs} == {48}
    again = copy.deepcopy(model)
    recalibrate_batchnorm(again, data.train, count=bn_recalibration_images or 2048, resolution=32, seed=tune.seed)
    for mine, theirs in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


def test_batchnorm_is_reestimated_from_the_images(dense: MobileNetV2, data: Dataset) -> None:
    model, seen = copy.deepcopy(dense), []
    norm = model.get_submodule("features.0.1")
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    recalibrate_batchnorm(model, data.train, count=64, resolution=32)
    assert torch.allclose(norm.running_mean, seen[0].mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(norm.running_var, seen[0].var((0, 2, 3)), rtol=1e-3)
    assert not model.training
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), dense.parameters(), strict=True))


@pytest.mark.slow
def test_training_learns_and_reports(data: Dataset) -> None:
    model, seen = fresh(10, 0), []
    tune = Training(
        optimizer="adamw",
        learning_rate=0.004,
        epochs=4,
        batch_size=32,
        resolution=32,
        images_per_epoch=512,
        random_shift=0,
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
    assert [schedule(step, 4, 0.0, "linear") for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert schedule(99, 100, 0.1, "constant") == 1.0


def test_weight_decay_spares_batchnorm_and_biases(dense: MobileNetV2) -> None:
    decayed, free = make_optimizer(copy.deepcopy(dense), Training(weight_decay=0.01)).param_groups
    assert {p.dim() for p in decayed["params"]} == {2, 4}
    assert {p.dim() for p in free["params"]} == {1}
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.01, 0.0)


def test_a_loss_that_is_not_a_number_is_told(dense: MobileNetV2, data: Dataset) -> None:
    model = copy.deepcopy(dense)
    with torch.no_grad():
        model.classifier[1].weight.fill_(float("nan"))
    with pytest.raises(Diverged, match="epoch 1"):
        next(fine_tune(model, data.train, Training(**SHORT), mirrors=False))


def test_no_epochs_leave_the_network_as_it_is(dense: MobileNetV2, data: Dataset) -> None:
    model = copy.deepcopy(dense)
    assert list(fine_tune(model, data.train, Training(epochs=0), mirrors=False)) == []
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), dense.parameters(), strict=True))


def test_evaluation_tells_right_from_wrong_image_by_image(dense: MobileNetV2, data: Dataset) -> None:
    split = data.test.first(100)
    right = evaluate(dense, split, resolution=32, batch_size=7)
    with torch.no_grad():
        constant = copy.deepcopy(dense)
        constant.classifier[1].weight.zero_()
        constant.classifier[1].bias.copy_(torch.arange(10) == 3)
    assert torch.equal(evaluate(constant, split, resolution=32), split.labels == 3)
    assert torch.equal(right, evaluate(dense, split, resolution=32, batch_size=100))
    assert len(drop_last(right)) == 64
    assert len(drop_last(right[:10])) == 10
    assert accuracy(torch.tensor([True, False, True, True])) == 0.75


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"optimizer": "lion"}, "optimizer"),
        ({"schedule": "steps"}, "schedule"),
        ({"batch_size": 1}, "batch_size"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"epochs": -1}, "epochs"),
        ({"distill_temperature": -1.0}, "distill_temperature"),
        ({"ema_decay": 0.9}, "bn_recalibration_images"),
        ({"phases": ({"epochs": 1},)}, "phases.0"),
    ],
)
def test_bad_training_settings_are_refused(bad: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Training(**bad)

"""On a GPU everything that runs a network gives what the CPU gives, up to rounding. Skipped where there is none."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.channels.importance import score_channels
from pruner.channels.plan import apply_plan, make_plan
from pruner.channels.reconstruct import reconstruct, record_targets
from pruner.data.datasets import Dataset
from pruner.exports.module import export_module
from pruner.measurement.measure import accuracy, evaluate
from pruner.network.loading import load_network
from pruner.recipe import Prune
from pruner.train import Training
from pruner.training.distill import Teacher, logits_by_chunk
from pruner.training.fine_tune import fine_tune
from pruner.weights.masks import score_weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use"),
]
SETTINGS = Training(
    epochs=2, images_per_epoch=256, batch_size=64, resolution=32, optimizer="adamw", learning_rate=0.004,
    data_parallel=0, precision="float32",
)  # fmt: skip


@pytest.fixture(scope="module")
def on_gpu(data: Dataset) -> Dataset:
    return data.to(torch.device("cuda"))


def trained(dense: MobileNetV2, data: Dataset, training: Training, **more: object) -> tuple[MobileNetV2, list[float]]:
    model = copy.deepcopy(dense)
    model.classifier[0].p = 0.0  # drawn by another generator there
    reports = fine_tune(model, data.train, training, mirrors=False, resolution=32, **more)  # type: ignore[arg-type]
    return model, [epoch.loss for epoch in reports]


def test_training_is_the_cpus_up_to_rounding(dense: MobileNetV2, data: Dataset, on_gpu: Dataset) -> None:
    _, wanted = trained(dense, data, SETTINGS)
    _, found = trained(dense, on_gpu, SETTINGS)
    assert found == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_training_in_16_bits_learns_as_well(dense: MobileNetV2, on_gpu: Dataset, precision: str) -> None:
    _, wanted = trained(dense, on_gpu, SETTINGS)
    _, found = trained(dense, on_gpu, replace(SETTINGS, precision=precision))
    assert found == pytest.approx(wanted, rel=0.1)


def test_a_training_resumes_to_nearly_the_same_weights(dense: MobileNetV2, on_gpu: Dataset) -> None:
    whole, states = copy.deepcopy(dense), []
    for epoch in fine_tune(whole, on_gpu.train, SETTINGS, mirrors=False, resolution=32):
        states.append(copy.deepcopy(epoch.state))  # noqa: PERF401 - in the loop, each as it is then
    second = copy.deepcopy(dense)
    list(fine_tune(second, on_gpu.train, SETTINGS, mirrors=False, resolution=32, resume=states[0]))
    for (name, a), b in zip(whole.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.allclose(a.float(), b.float(), atol=1e-2), name


def test_a_compiled_training_learns(dense: MobileNetV2, on_gpu: Dataset) -> None:
    _, wanted = trained(dense, on_gpu, SETTINGS)
    _, found = trained(dense, on_gpu, replace(SETTINGS, compile=True))
    assert found == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("importance", ["taylor", "obs"])
def test_scores_reconstruction_and_accuracy_are_the_cpus(
    dense: MobileNetV2, data: Dataset, on_gpu: Dataset, importance: str
) -> None:
    outputs = []
    for where in (data, on_gpu):
        images, parent = where.train.first(128), copy.deepcopy(dense).to(where.train.images.device)
        scores = score_channels(parent, importance, images, resolution=32)
        pruned = apply_plan(parent, make_plan(dense, Prune(pruning_ratio={"stage4": 0.5}), scores))
        plan = make_plan(dense, Prune(pruning_ratio={"stage4": 0.5}), scores)
        reconstruct(pruned, record_targets(parent, images, resolution=32), plan, images, resolution=32)
        outputs.append(accuracy(evaluate(pruned, where.holdout, resolution=32)))
    assert outputs[1] == pytest.approx(outputs[0], abs=0.02)


def test_logits_and_weight_scores_are_the_cpus(dense: MobileNetV2, data: Dataset, on_gpu: Dataset) -> None:
    logits, scores = [], []
    for where in (data, on_gpu):
        model = copy.deepcopy(dense).eval().to(where.train.images.device)
        logits.append(torch.cat([c.cpu() for c in logits_by_chunk(model, where.train, resolution=32, mirrors=False)]))
        scores.append(score_weights(model, "taylor", where.train.first(32), resolution=32))
    assert torch.allclose(logits[0], logits[1], atol=1e-2)
    for name, wanted in scores[0].items():
        assert torch.allclose(scores[1][name].cpu(), wanted, rtol=0.1, atol=1e-2), name
    assert Teacher(logits[1]).of(torch.tensor([0, 1]), torch.zeros(2, dtype=torch.bool)).shape == (2, 10)


def test_a_network_that_was_trained_there_loads_on_a_cpu(dense: MobileNetV2, on_gpu: Dataset, tmp_path: Path) -> None:
    model, _ = trained(dense, on_gpu, SETTINGS)
    export_module(model, tmp_path / "net.pth")
    assert next(load_network(tmp_path / "net.pth").parameters()).device.type == "cpu"


@pytest.mark.slow
def test_two_workers_share_a_gpu(invoke: Callable[..., str], write_study: Callable[..., Path], tmp_path: Path) -> None:
    study = write_study()
    printed = invoke("run", study, "--runs", tmp_path / "runs", "--workers", 2, "--device", "cuda", "--json")
    assert json.loads(printed)["trials"]["done"] == 4

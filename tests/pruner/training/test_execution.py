"""Execution: another way to run a training changes its speed and its rounding, nothing else."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.mobilenetv2 import MobileNetV2

from processes import running
from pruner.data.batches import train_batches
from pruner.data.datasets import Dataset
from pruner.measurement.measure import evaluate
from pruner.train import EXECUTIONS, Phase, Training
from pruner.training.execution import _StridedDepthwise, best, runner, seconds_a_step
from pruner.training.fine_tune import fine_tune
from pruner.training.split import split_runner
from search.storage.folder import StudyFolder
from search.terminal.progress import Terminal
from search.trial.speed import with_executions
from studies import WriteStudy

SHAPE = (8, 32)


@pytest.fixture(scope="module")
def small() -> MobileNetV2:
    """A few of MobileNetV2's blocks: compiling all of them takes minutes."""
    torch.manual_seed(0)
    model = MobileNetV2(num_classes=10, inverted_residual_setting=[[1, 16, 1, 1], [2, 24, 2, 2]])
    return model.to(memory_format=torch.channels_last)


def gradients(model: MobileNetV2, execution: str, data: Dataset) -> torch.Tensor:
    """Of the cross-entropy of a batch, all in one vector."""
    batch = next(
        train_batches(data.train, batch_size=SHAPE[0], resolution=SHAPE[1], seed=0, epoch=0, flip=False, random_shift=0)
    )
    model = copy.deepcopy(model).train()
    model.classifier[0].p = 0.0
    run = runner(model, execution, SHAPE)
    F.cross_entropy(run(batch.images), batch.labels).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


def test_a_strided_depthwise_convolution_has_the_gradients_of_any_other() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 8, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.randn(3, 1, 3, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    usual = F.conv2d(images, weight, None, 2, 1, 1, 3)
    ours = _StridedDepthwise.apply(images, weight)
    assert torch.equal(ours, usual)
    ahead = torch.randn(usual.shape, dtype=torch.float64, generator=generator)
    wanted = torch.autograd.grad((usual * ahead).sum(), (images, weight))
    found = torch.autograd.grad((ours * ahead).sum(), (images, weight))
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_with_bfloat16_gradients_point_the_same_way(small: MobileNetV2, data: Dataset) -> None:
    wanted, found = (gradients(small, execution, data) for execution in ("eager", "eager-bf16"))
    assert not torch.equal(found, wanted)
    assert F.cosine_similarity(found, wanted, dim=0) > 0.98


def test_channels_first_gives_the_same_gradients_up_to_rounding(small: MobileNetV2, data: Dataset) -> None:
    wanted, found = (gradients(small, execution, data) for execution in ("eager", "eager-nchw"))
    assert not torch.equal(found, wanted)
    assert F.cosine_similarity(found, wanted, dim=0) > 0.9999


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_layouts_may_change_between_phases_and_at_a_look(small: MobileNetV2, data: Dataset, optimizer: str) -> None:
    """The optimizer's memory of the weights moves with them; nothing is said where it does not."""

    def trained(*executions: str) -> torch.Tensor:
        phases = tuple(Phase(epochs=2, execution=execution) for execution in executions)
        tune = Training(
            images_per_epoch=8, batch_size=SHAPE[0], resolution=SHAPE[1], optimizer=optimizer, learning_rate=1e-4,
            phases=phases,
        )  # fmt: skip
        model = copy.deepcopy(small)
        for _ in fine_tune(model, data.train, tune, mirrors=False):
            evaluate(model, data.test, resolution=SHAPE[1])
        stem: torch.Tensor = model.features[0][0].weight.detach()
        return stem

    was = small.features[0][0].weight.detach()
    wanted, found = trained("eager", "eager"), trained("eager-nchw", "eager")
    assert 0 < (found - wanted).norm() < 0.03 * (wanted - was).norm()


def test_a_split_batch_has_the_gradients_of_its_parts(small: MobileNetV2) -> None:
    whole = copy.deepcopy(small).double().train()
    whole.classifier[0].p = 0.0
    split, parts = copy.deepcopy(whole), [copy.deepcopy(whole) for _ in range(2)]
    images = torch.randn(9, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    outputs = split_runner(split, 2)(images)
    outputs.square().mean().backward()
    wanted = torch.cat([part(some) for part, some in zip(parts, images.chunk(2), strict=True)])
    assert torch.allclose(outputs, wanted)
    wanted.square().mean().backward()
    for (name, weight), *theirs in zip(split.named_parameters(), *(part.parameters() for part in parts), strict=True):
        assert torch.allclose(weight.grad, theirs[0].grad + theirs[1].grad, atol=1e-12), name
    norms = [network.features[0][1].running_mean for network in (split, *parts)]
    assert torch.allclose(norms[0], (norms[1] + norms[2]) / 2)
    assert split.features[0][1].num_batches_tracked == 1


@pytest.mark.slow
def test_split_training_learns_and_resumes_to_the_same_weights(small: MobileNetV2, data: Dataset) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        tune = Training(
            epochs=4, images_per_epoch=256, batch_size=64, resolution=16, optimizer="adamw", learning_rate=0.01,
            execution="eager-split",
        )  # fmt: skip
        whole, second = copy.deepcopy(small), copy.deepcopy(small)
        reports = fine_tune(whole, data.train, tune, mirrors=False)
        epochs = [replace(epoch, state=copy.deepcopy(epoch.state)) for epoch in reports]
        list(fine_tune(second, data.train, tune, mirrors=False, resume=epochs[1].state))
        assert torch.get_num_threads() == 2, "others keep their threads"
    finally:
        torch.set_num_threads(threads)
    assert epochs[-1].loss < 0.8 * epochs[0].loss
    for (name, a), b in zip(whole.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert whole.features[0][1].num_batches_tracked == 4 * 256 / 64


@pytest.mark.slow
def test_compiled_gradients_are_the_same_up_to_rounding(small: MobileNetV2, data: Dataset) -> None:
    wanted, found = (gradients(small, execution, data) for execution in ("eager", "compiled"))
    assert F.cosine_similarity(found, wanted, dim=0) > 0.9999
    assert float(found.norm()) == pytest.approx(float(wanted.norm()), rel=1e-3)


@pytest.mark.slow
def test_a_compiled_training_resumes_to_the_same_weights(small: MobileNetV2, data: Dataset) -> None:
    tune = Training(epochs=2, images_per_epoch=32, batch_size=SHAPE[0], resolution=SHAPE[1], execution="compiled")
    whole, states = copy.deepcopy(small), []
    for epoch in fine_tune(whole, data.train, tune, mirrors=False):
        file = io.BytesIO()
        torch.save(epoch.state, file)
        states.append(file)
    states[0].seek(0)
    second = copy.deepcopy(small)
    list(fine_tune(second, data.train, tune, mirrors=False, resume=torch.load(states[0], weights_only=True)))
    for (name, a), b in zip(whole.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_running_and_timing_leave_no_trace_in_the_network(small: MobileNetV2) -> None:
    model = copy.deepcopy(small)
    run = runner(model, "eager-bf16", SHAPE)
    assert seconds_a_step(model, run, SHAPE) > 0
    assert not any("forward" in vars(layer) for layer in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    for (name, a), b in zip(model.state_dict().items(), small.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_short_training_is_not_compiled(small: MobileNetV2) -> None:
    execution, speeds = best(small, SHAPE, images=1000)
    assert execution in speeds
    assert all(name.startswith("eager") for name in speeds)


def test_what_is_long_is_measured_once_and_kept(dense: MobileNetV2, data: Dataset, tmp_path: Path) -> None:
    folder, model = StudyFolder(tmp_path), copy.deepcopy(dense)
    short = Training(epochs=1, images_per_epoch=64, batch_size=4, resolution=224)
    asked = replace(short, epochs=50, execution="eager")
    for tune in (short, asked):
        assert with_executions(model, tune, data, folder, Terminal()) == tune
    assert not folder.speeds.exists()
    phases = (Phase(epochs=50), Phase(epochs=1))
    chosen = with_executions(model, replace(short, phases=phases), data, folder, Terminal())
    assert chosen.phases[1].execution == "auto"
    assert chosen.phases[0].execution in EXECUTIONS[1:]
    (kept,) = json.loads(folder.speeds.read_text()).values()
    assert kept["execution"] == chosen.phases[0].execution
    folder.speeds.write_text(folder.speeds.read_text().replace(kept["execution"], "compiled-bf16", 1))
    again = with_executions(model, replace(short, phases=phases), data, folder, Terminal())
    assert again.phases[0].execution == "compiled-bf16", "what is kept is not measured again"


@pytest.mark.slow
def test_a_machine_that_cannot_compile_says_so(write_study: WriteStudy, tmp_path: Path) -> None:
    study = write_study('trials = 1\ntrain.execution = "compiled"')
    machine = {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    with running("worker", study, "--runs", tmp_path / "runs", **machine) as process:
        _, errors = process.communicate()
    assert process.returncode != 0
    assert "execution" in errors
    assert "eager" in errors
    assert "Traceback" not in errors

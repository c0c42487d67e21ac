"""Batches in parts: the same gradients, weights and statistics on any number of cores, in any layout and precision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.channels.importance import score_channels
from pruner.channels.plan import apply_plan, make_plan
from pruner.channels.reconstruct import reconstruct, record_targets
from pruner.data.batches import Batch, prepared, train_batches
from pruner.data.datasets import Dataset
from pruner.measurement.measure import evaluate
from pruner.recipe import Prune
from pruner.system.cores import core_count, on_cores, use_cores
from pruner.train import Phase, Training
from pruner.training.distill import Teacher, logits_by_chunk
from pruner.training.fine_tune import fine_tune
from pruner.training.frozen import normalised, rescale, settle
from pruner.training.parts import Gradients

PIXELS = 32


@pytest.fixture
def cores() -> Iterator[None]:
    """Puts the number of cores back to what it was."""
    before = core_count()
    yield
    use_cores(before)


def sum_of_losses(logits: Tensor, labels: Tensor, _wanted: Tensor | None) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum")


def a_batch(data: Dataset, size: int) -> Batch:
    return next(train_batches(data.train, batch_size=size, seed=0, epoch=0, flip=False, random_shift=0))


def gradients(model: MobileNetV2, data: Dataset, size: int = 8, **settings: object) -> tuple[MobileNetV2, Tensor]:
    """(the network, which was trained on; the gradients of a batch, all in one vector), without dropout."""
    model = copy.deepcopy(model).train()
    model.classifier[0].p = 0.0
    phase = Training(resolution=PIXELS, **settings)  # type: ignore[arg-type]
    Gradients(model, phase, sum_of_losses)(a_batch(data, size), None)
    return model, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_in_parts_has_the_gradients_and_statistics_of_its_parts(
    small: MobileNetV2, data: Dataset, count: int, cores: None
) -> None:
    use_cores(count)
    ours, found = gradients(small, data, size=12, data_parallel=5)
    batch = a_batch(data, 12)
    parts = [copy.deepcopy(small).train() for _ in range(2)]
    for part, images, labels in zip(parts, batch.images.chunk(2), batch.labels.chunk(2), strict=True):
        part.classifier[0].p = 0.0
        (sum_of_losses(part(prepared(images, PIXELS)), labels, None) / 12).backward()
    wanted = [torch.cat([weight.grad.flatten() for weight in part.parameters()]) for part in parts]
    assert torch.allclose(found, wanted[0] + wanted[1], atol=1e-5)
    norms = [network.features[0][1] for network in (ours, *parts)]
    assert torch.allclose(norms[0].running_mean, (norms[1].running_mean + norms[2].running_mean) / 2)
    assert norms[0].num_batches_tracked == 1


def test_a_batch_that_is_too_small_to_split_is_one_part(small: MobileNetV2, data: Dataset) -> None:
    _, whole = gradients(small, data, size=8, data_parallel=0)
    for size in (5, 8, 100):
        assert torch.equal(gradients(small, data, size=8, data_parallel=size)[1], whole)
    assert not torch.equal(gradients(small, data, size=8, data_parallel=4)[1], whole)


def test_with_bfloat16_gradients_point_the_same_way(small: MobileNetV2, data: Dataset) -> None:
    wanted, found = (gradients(small, data, precision=precision)[1] for precision in ("float32", "bfloat16"))
    assert not torch.equal(found, wanted)
    assert F.cosine_similarity(found, wanted, dim=0) > 0.98


def test_frozen_statistics_give_the_gradients_of_batchnorm_in_eval_mode(small: MobileNetV2, data: Dataset) -> None:
    ours, found = gradients(small, data, size=8, data_parallel=4, frozen_statistics=True)
    usual = copy.deepcopy(small).eval()
    batch = a_batch(data, 8)
    (sum_of_losses(usual(prepared(batch.images, PIXELS)), batch.labels, None) / 8).backward()
    wanted = torch.cat([weight.grad.flatten() for weight in usual.parameters()])
    assert torch.allclose(found, wanted, rtol=1e-3, atol=1e-6)
    assert (
        F.cosine_similarity(gradients(small, data, frozen_statistics=True, precision="bfloat16")[1], wanted, 0) > 0.98
    )
    for name, buffer in small.named_buffers():
        assert torch.equal(buffer, dict(ours.named_buffers())[name]), name


def length(conv: nn.Conv2d) -> Tensor:
    return conv.weight.flatten(1).norm(dim=1)


@pytest.mark.parametrize("move", [settle, rescale])
def test_settled_or_rescaled_a_network_is_the_same_function(
    move: Callable[[nn.Module], None], small: MobileNetV2, data: Dataset
) -> None:
    model = copy.deepcopy(small).eval()
    for index, norm in enumerate(layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)):
        generator = torch.Generator().manual_seed(index)
        for values in (norm.weight.data, norm.running_mean, norm.bias.data):
            values.copy_(torch.randn(len(values), generator=generator))
        norm.running_var.copy_(torch.rand(len(norm.running_var), generator=generator) + 0.01)
    inputs = prepared(a_batch(data, 8).images, PIXELS)
    with torch.no_grad():
        before = model(inputs)
        move(model)
        assert torch.allclose(model(inputs), before, rtol=1e-3, atol=1e-3)
    for conv, norm in normalised(model):
        if move is settle:
            assert torch.allclose(norm.weight, torch.sqrt(norm.running_var + norm.eps)), "a factor is left"
        else:
            assert torch.allclose(length(conv), torch.tensor(1.5 if conv.groups > 1 else 3.0))


def test_weights_trained_with_frozen_statistics_are_left_as_long_as_batch_statistics_want_them(
    small: MobileNetV2, data: Dataset
) -> None:
    model = copy.deepcopy(small)
    phases = (Phase(frozen_statistics=True),)
    training = Training(learning_rate=1e-4, batch_size=16, resolution=PIXELS, images_per_epoch=32, phases=phases)
    list(fine_tune(model, data.train, training, mirrors=False))
    for conv, _ in normalised(model):
        assert torch.allclose(length(conv), torch.tensor(1.5 if conv.groups > 1 else 3.0)), "the next rate would differ"


class _Crowded(MobileNetV2):
    """A network on a device whose memory holds the activations of so many images."""

    holds = 5

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > self.holds:
            raise torch.OutOfMemoryError("out of memory")
        return super().forward(inputs)


def test_a_device_without_memory_for_a_batch_takes_it_in_pieces(
    data: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    """As on a GPU, where batches are whole."""
    torch.manual_seed(0)
    model = _Crowded(num_classes=10, inverted_residual_setting=[[1, 16, 1, 1]]).train()
    model.classifier[0].p = 0.0
    batch, parted = a_batch(data, 16), copy.deepcopy(model)
    ours = Gradients(model, Training(resolution=PIXELS), sum_of_losses)
    for _ in range(2):
        loss, logits = ours._whole(batch, None, 1.0)
    assert capsys.readouterr().err.count("\n") == 1, "said once, in one line"
    wanted, theirs = Gradients(parted, Training(resolution=PIXELS, data_parallel=4), sum_of_losses)(batch, None)
    assert torch.allclose(loss, wanted)
    assert torch.allclose(logits, theirs, atol=1e-5)
    for one, other in zip(model.parameters(), parted.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, atol=1e-5)
    model.holds = 1
    with pytest.raises(torch.OutOfMemoryError):
        ours._whole(a_batch(data, 6), None, 1.0)


def test_channels_first_gives_the_same_gradients_up_to_rounding(small: MobileNetV2, data: Dataset) -> None:
    wanted, found = (gradients(small, data, memory_format=each)[1] for each in ("channels_last", "channels_first"))
    assert not torch.equal(found, wanted)
    assert F.cosine_similarity(found, wanted, dim=0) > 0.9999


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_layouts_may_change_between_phases(small: MobileNetV2, data: Dataset, optimizer: str) -> None:
    """The optimizer's memory of the weights moves with them; nothing is said where it does not."""

    def trained(*layouts: str) -> Tensor:
        phases = tuple(Phase(epochs=2, memory_format=layout) for layout in layouts)
        training = Training(
            images_per_epoch=8, batch_size=8, resolution=PIXELS, optimizer=optimizer, learning_rate=1e-4, phases=phases
        )
        model = copy.deepcopy(small)
        for _ in fine_tune(model, data.train, training, mirrors=False, resolution=PIXELS):
            evaluate(model, data.test.first(64), resolution=PIXELS)
        stem: Tensor = model.features[0][0].weight.detach()
        return stem

    was = small.features[0][0].weight.detach()
    wanted, found = trained("channels_last", "channels_last"), trained("channels_first", "channels_last")
    assert 0 < (found - wanted).norm() < 0.03 * (wanted - was).norm()


def test_on_any_number_of_cores_everything_is_equal_to_the_bit(small: MobileNetV2, data: Dataset, cores: None) -> None:
    """Training with distillation and dropout, killed or not, evaluation, logits."""
    training = Training(
        epochs=2, images_per_epoch=160, batch_size=80, resolution=16, optimizer="adamw", learning_rate=0.01,
        distill_temperature=2.0, ema_decay=0.9, bn_recalibration_images=128, data_parallel=16,
    )  # fmt: skip
    results = []
    for count in (1, 2, 3):
        use_cores(count)
        chunks = logits_by_chunk(copy.deepcopy(small).eval(), data.train, resolution=16, mirrors=False)
        logits = torch.cat(list(chunks))
        model, resumed = copy.deepcopy(small), copy.deepcopy(small)
        reports = fine_tune(model, data.train, training, mirrors=False, teacher=Teacher(logits), resolution=16)
        epochs = [replace(epoch, state=copy.deepcopy(epoch.state)) for epoch in reports]
        use_cores(4 - count)
        list(fine_tune(resumed, data.train, training, mirrors=False, teacher=Teacher(logits), resolution=16,
                       resume=epochs[0].state))  # fmt: skip
        right = evaluate(model, data.holdout, resolution=16, batch_size=16)
        results.append([logits, right, *model.state_dict().values()])
        for (name, a), b in zip(model.state_dict().items(), resumed.state_dict().values(), strict=True):
            assert torch.equal(a, b), f"{name}, resumed on another number of cores"
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("importance", ["taylor", "hessian", "obs"])
def test_scores_and_reconstruction_are_equal_on_any_number_of_cores(
    narrow: MobileNetV2, data: Dataset, importance: str, cores: None
) -> None:
    found = []
    images = data.train.first(70)
    for count in (1, 2):
        use_cores(count)
        scores = score_channels(narrow, importance, images, resolution=PIXELS)
        plan = make_plan(narrow, Prune(pruning_ratio={"stage4": 0.5, "head": 0.7}), scores)
        pruned = apply_plan(narrow, plan)
        reconstruct(pruned, record_targets(narrow, images, resolution=PIXELS), plan, images, resolution=PIXELS)
        found.append([*scores.values(), *pruned.state_dict().values()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_an_error_in_a_part_is_raised_and_nothing_runs_on_behind_it(cores: None) -> None:
    use_cores(2)
    done = []

    def work(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        done.append(number)
        return number

    with pytest.raises(ValueError, match="three"):
        list(on_cores(work, range(100)))
    count = len(done)
    assert count < 10
    assert list(on_cores(lambda number: number + 1, range(5))) == [1, 2, 3, 4, 5], "the cores are free again"
    assert len(done) == count

"""Laws of fine-grained pruning."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2

from processes import Invoke
from pruner.channels.importance import score_channels
from pruner.channels.plan import apply_plan, make_plan
from pruner.data.datasets import Dataset, Split
from pruner.errors import InputError
from pruner.measurement.measure import nonzero_params
from pruner.network.loading import load_network
from pruner.recipe import Mask, Prune
from pruner.train import Training
from pruner.training.fine_tune import fine_tune
from pruner.weights.masks import (
    MaskKeeper,
    apply_masks,
    cubic,
    looks_masked,
    make_masks,
    score_weights,
    shrink_masks,
    sparsity_of,
    threshold_mask,
    weights,
)  # fmt: skip
from studies import WriteStudy

TUNE = Training(
    epochs=3, images_per_epoch=32, batch_size=16, resolution=32, learning_rate=0.05, momentum=0.9, weight_decay=0.1
)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60, unique=True), st.floats(-0.5, 1.5))
def test_exactly_round_sparsity_times_elements_become_zero(values: list[int], sparsity: float) -> None:
    mask = threshold_mask(torch.tensor(values, dtype=torch.float32), sparsity)
    zeros = round(min(max(sparsity, 0.0), 1.0) * len(values))
    assert (~mask).sum() == zeros
    kept, gone = (
        [v for v, stays in zip(values, mask.tolist(), strict=True) if stays == want] for want in (True, False)
    )
    assert not kept or not gone or min(kept) > max(gone)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.floats(0, 1), st.floats(0, 1))
def test_masks_only_shrink_as_sparsity_grows(values: list[int], one: float, other: float) -> None:
    low, high = sorted((one, other))
    importance = torch.tensor(values, dtype=torch.float32).view(1, -1)
    less, more = threshold_mask(importance, low), threshold_mask(importance, high)
    assert not (more & ~less).any(), "a weight came back"
    assert less.shape == importance.shape and less.dtype == torch.bool


def test_ties_go_together_and_the_ends_are_all_and_nothing() -> None:
    importance = torch.tensor([1.0, 2.0, 2.0, 2.0, 3.0])
    assert threshold_mask(importance, 0.4).tolist() == [False, False, False, False, True]
    assert threshold_mask(importance, 0.2).tolist() == [False, True, True, True, True]
    for nothing in (0.0, -1.0, 0.05):
        assert threshold_mask(importance, nothing).all()
    for everything in (1.0, 7.0):
        assert not threshold_mask(importance, everything).any()
    assert threshold_mask(torch.zeros(3), 0.0).all(), "0 keeps all, even what is zero already"


class Two(nn.Module):
    """x -> b * relu6(a * x): two layers small enough to differentiate by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 1, 1, bias=False), nn.Linear(1, 2, bias=False)
        with torch.no_grad():
            self.a.weight.copy_(torch.tensor([0.5, 0.25, 0.125]).view(1, 3, 1, 1))
            self.b.weight.copy_(torch.tensor([[1.0], [-2.0]]))

    def forward(self, images: Tensor) -> Tensor:
        return self.b(self.a(images).mean((2, 3)))


def test_taylor_is_what_a_hand_computes() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 8, 8), dtype=torch.uint8, generator=generator)  # three batches
    split = Split(images, torch.arange(20) % 2)
    model = Two()
    got = score_weights(model, "taylor", split, resolution=8)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = ((images / 255 - mean) / std).mean((2, 3))  # averaging and the first layer commute
    a, b = torch.tensor([0.5, 0.25, 0.125]), torch.tensor([1.0, -2.0])
    hidden = x @ a
    error = torch.softmax(hidden[:, None] * b, 1) - torch.nn.functional.one_hot(split.labels, 2)  # d loss / d logits
    batches = [slice(0, 8), slice(8, 16), slice(16, 20)]
    of_b = sum((b * (error * hidden[:, None])[batch].sum(0)).abs() for batch in batches)
    of_a = sum((a * ((error @ b)[:, None] * x)[batch].sum(0)).abs() for batch in batches)
    torch.testing.assert_close(got["b.weight"].flatten(), of_b)
    torch.testing.assert_close(got["a.weight"].flatten(), of_a)
    assert model.a.weight.grad is None
    with pytest.raises(InputError, match="calibration images"):
        score_weights(model, "taylor")


def test_a_recipe_names_stages_single_layers_or_all(dense: MobileNetV2) -> None:
    mask = Mask(sparsity={"stage2": 0.5, "features.2.conv.0.0.weight": 0.9, "classifier": 1.0}, uniform=0.1)
    found = make_masks(score_weights(dense, "magnitude"), mask)
    assert len(found) == 53
    for name, value in found.items():
        assert (~value).sum() == round(sparsity_of(mask, name) * value.numel()), name
    assert sparsity_of(mask, "features.2.conv.0.0.weight") == 0.9
    assert sparsity_of(mask, "features.3.conv.2.weight") == 0.5
    assert sparsity_of(mask, "features.18.0.weight") == 0.1
    everywhere = make_masks(score_weights(dense, "magnitude"), Mask(global_sparsity=0.75))
    total = sum(value.numel() for value in everywhere.values())
    assert sum(int((~value).sum()) for value in everywhere.values()) == pytest.approx(0.75 * total, abs=2)
    kept = torch.cat([weight.detach().abs()[everywhere[name]] for name, weight in weights(dense).items()])
    gone = torch.cat([weight.detach().abs()[~everywhere[name]] for name, weight in weights(dense).items()])
    assert kept.min() > gone.max()


def test_masks_made_in_steps_only_shrink_and_end_where_the_recipe_says(dense: MobileNetV2) -> None:
    mask = Mask(sparsity={"stage2": 0.5}, uniform=0.75)
    generator = torch.Generator().manual_seed(0)
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights(dense).items()}
    for step in (1, 2, 3):
        scores = {name: torch.rand(value.shape, generator=generator) for name, value in masks.items()}
        tighter = shrink_masks(masks, scores, mask, cubic(step / 3))
        for name, value in tighter.items():
            assert not (value & ~masks[name]).any()
            assert (~value).sum() == round(cubic(step / 3) * sparsity_of(mask, name) * value.numel()), name
        masks = tighter
    assert cubic(1.0) == 1.0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_masked_weight_is_zero_after_every_step_and_so_is_its_momentum(
    dense: MobileNetV2, data: Dataset, optimizer: str
) -> None:
    model, mask = copy.deepcopy(dense), Mask(uniform=0.8)
    keeper = MaskKeeper(model, mask, make_masks(score_weights(model, "magnitude"), mask))
    apply_masks(model, keeper.masks)
    checked = 0
    hold = keeper.after_step

    def watched(used: torch.optim.Optimizer, step: int, steps: int) -> None:
        nonlocal checked
        moved = any(weight.detach()[~keeper.masks[name]].any() for name, weight in weights(model).items())
        assert moved, "the step moves masked weights: without the keeper this test would fail"
        hold(used, step, steps)
        for name, weight in weights(model).items():
            gone = ~keeper.masks[name]
            assert not weight.detach()[gone].any()
            for value in used.state[weight].values():
                assert not isinstance(value, Tensor) or value.shape != weight.shape or not value[gone].any()
        checked += 1

    keeper.after_step = watched  # type: ignore[method-assign]
    tune = replace(TUNE, epochs=1, optimizer=optimizer)
    list(fine_tune(model, data.train, tune, mirrors=False, keeper=keeper))
    assert checked == 2


@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_gradual_masks_only_shrink_reach_their_goal_and_resume_to_the_bit(
    narrow: MobileNetV2, data: Dataset, importance: str
) -> None:
    mask = Mask(importance=importance, uniform=0.9, gradual=True, end_fraction=0.8, pruning_steps=3)

    def run(stop_after: int | None = None) -> tuple[nn.Module, list[float], MaskKeeper]:
        model, shares, state = copy.deepcopy(narrow), [], None
        for _ in range(2):
            keeper = MaskKeeper(
                model, mask, {n: torch.ones_like(w, dtype=torch.bool) for n, w in weights(model).items()}
            )
            for epoch in fine_tune(model, data.train, TUNE, mirrors=False, keeper=keeper, resume=state):
                shares.append(sum(int((~m).sum()) for m in keeper.masks.values()))
                if epoch.number == stop_after and state is None:
                    state = copy.deepcopy(epoch.state)
                    model = copy.deepcopy(narrow)
                    break
            else:
                return model, shares, keeper
        raise AssertionError

    model, shares, keeper = run()
    assert shares == sorted(shares) and shares[0] > 0
    for name, value in keeper.masks.items():
        zeros, wanted = int((~value).sum()), round(0.9 * value.numel())
        assert zeros == wanted if importance == "magnitude" else zeros >= wanted, name  # gradients of exactly 0 tie
        assert not weights(model)[name].detach()[~value].any()
    resumed, _, _ = run(stop_after=2)
    assert all(a.equal(b) for a, b in zip(model.state_dict().values(), resumed.state_dict().values(), strict=True))


def rounded(model: MobileNetV2, steps: int) -> MobileNetV2:
    """Its weights in whole steps of their layer's largest, as after a quantization."""
    with torch.no_grad():
        for weight in weights(model).values():
            step = weight.abs().max() / steps
            weight.copy_((weight / step).round() * step)
    return model


def with_dead_channels(model: MobileNetV2) -> MobileNetV2:
    """Weight decay has taken these channels: their filters, and what reads them, are zero."""
    for name in ("features.4.conv", "features.9.conv"):
        expand, depthwise, project = (model.get_parameter(f"{name}.{layer}.weight") for layer in ("0.0", "1.0", "2"))
        with torch.no_grad():
            expand[::3], depthwise[::3], project[:, ::3] = 0, 0, 0
    return model


def masked(model: MobileNetV2, mask: Mask) -> MobileNetV2:
    apply_masks(model, make_masks(score_weights(model, "magnitude"), mask))
    return model


def pruned(model: MobileNetV2, cut: float) -> MobileNetV2:
    plan = make_plan(model, Prune(importance="l1", global_pruning_ratio=cut), score_channels(model, "l1"))
    return apply_plan(model, plan)


UNMASKED: dict[str, Callable[[MobileNetV2], MobileNetV2]] = {
    "fresh": lambda model: model,
    "of half precision": lambda model: model.half().float(),
    "rounded to 8 bits": lambda model: rounded(model, 127),
    "with dead channels": with_dead_channels,
    "with dead channels, rounded": lambda model: rounded(with_dead_channels(model), 127),
    "pruned": lambda model: pruned(model, 0.5),
    "pruned to a stump": lambda model: pruned(model, 0.97),
    "rounded and pruned": lambda model: pruned(rounded(model, 127), 0.7),
}
MASKED: dict[str, Callable[[MobileNetV2], MobileNetV2]] = {
    "a tenth": lambda model: masked(model, Mask(uniform=0.1)),
    "nearly all": lambda model: masked(model, Mask(uniform=0.98)),
    "the classifier alone": lambda model: masked(model, Mask(sparsity={"classifier": 0.8})),
    "globally": lambda model: masked(model, Mask(global_sparsity=0.5)),
    "after a rounding": lambda model: masked(rounded(model, 127), Mask(uniform=0.3)),
    "before a rounding": lambda model: rounded(masked(model, Mask(uniform=0.3)), 127),
    "after a cut": lambda model: masked(pruned(model, 0.7), Mask(uniform=0.3)),
}


@pytest.mark.parametrize("kind", UNMASKED)
def test_a_network_that_nobody_masked_has_no_masks(dense: MobileNetV2, kind: str) -> None:
    model = UNMASKED[kind](copy.deepcopy(dense))
    assert not any(looks_masked(weight) for weight in weights(model).values())
    assert nonzero_params(model) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("kind", MASKED)
def test_masks_are_seen_and_leave_what_is_not_zero(dense: MobileNetV2, kind: str) -> None:
    model = MASKED[kind](copy.deepcopy(dense))
    assert nonzero_params(model) == sum(int(parameter.count_nonzero()) for parameter in model.parameters())


def test_training_makes_no_masks(narrow: MobileNetV2, data: Dataset) -> None:
    model = copy.deepcopy(narrow)
    list(fine_tune(model, data.train, replace(TUNE, weight_decay=0.5), mirrors=False))
    assert nonzero_params(model) == sum(parameter.numel() for parameter in model.parameters())


def test_the_courses_network_is_rounded_but_not_masked(course_files: tuple[Path, Path]) -> None:
    model = load_network(course_files[1])
    assert sum(int((weight == 0).sum()) for weight in weights(model).values()) / 2.2e6 > 0.02
    assert nonzero_params(model) == sum(parameter.numel() for parameter in model.parameters())


def test_score_tells_of_masks_where_there_are_some(invoke: Invoke, narrow: MobileNetV2, tmp_path: Path) -> None:
    for mask, told in ((Mask(uniform=0.0), False), (Mask(uniform=0.5), True)):
        torch.save(masked(rounded(copy.deepcopy(narrow), 127), mask), tmp_path / "net.pth")
        printed = invoke("evaluate", tmp_path / "net.pth", "--data", "digits", "--resolution", 32)
        assert ("Masks:" in printed) == told


MASKS = """
objectives = ["nonzero_bytes", "accuracy"]
[space]
mask_importance = ["magnitude", "taylor"]
masking = ["one-shot", "gradual"]
sparsity = { stage6 = { low = 0.5, high = 0.9 }, head = 0.8 }
"""


@pytest.mark.slow
def test_a_study_of_masks_runs_like_any_other_and_exports_zeros(
    invoke: Invoke, write_study: WriteStudy, tmp_path: Path
) -> None:
    study = write_study(MASKS, without=["space"], name="sparse")
    runs = tmp_path / "runs"
    printed = json.loads(invoke("run", study, "--runs", runs, "--workers", 1, "--json"))
    records = json.loads(invoke("status", study, "--runs", runs, "--json"))["records"]
    assert [record["state"] for record in records] == ["done"] * 4
    assert {record["mflops_removed"] for record in records} == {0.0}, "masks do not remove operations"
    best = min(records, key=lambda record: record["nonzero_bytes"])
    assert printed["best"]["number"] == best["number"]
    for record in records:
        model = load_network(runs / "sparse" / "trials" / f"{record['number']:04}" / "model.pth")
        zeros = {name: int((weight == 0).sum()) / weight.numel() for name, weight in weights(model).items()}
        assert zeros["features.18.0.weight"] == pytest.approx(0.8, abs=1e-4)
        wanted = record["sampled"]["sparsity.stage6"]
        if record["sampled"]["mask_importance"] == "magnitude":
            assert zeros["features.15.conv.0.0.weight"] == pytest.approx(wanted, abs=1e-2)
        else:  # where ReLU6 lets nothing through, gradients are 0 and tie
            assert zeros["features.15.conv.0.0.weight"] >= wanted - 1e-2
        assert zeros["features.5.conv.0.0.weight"] < 0.01
        assert record["nonzero_bytes"] == 4 * nonzero_params(model)
    report = (runs / "sparse" / "report.html").read_text()
    assert "leave the operations as they are" in report
    assert "Accuracy against size" in report and "Sizes by trial" in report


@pytest.mark.slow
def test_masks_go_on_top_of_a_cut(invoke: Invoke, write_study: WriteStudy, tmp_path: Path) -> None:
    both = (
        "trials = 1\nprune.reconstruction_images = 64\n"
        "[space]\nreconstruct = true\nglobal_sparsity = 0.6\npruning_ratio.stage7 = 0.5\n"
    )
    study = write_study(both, without=["space"], name="both")
    invoke("run", study, "--runs", tmp_path, "--workers", 1)
    (record,) = json.loads(invoke("status", study, "--runs", tmp_path, "--json"))["records"]
    model = load_network(tmp_path / "both" / "trials" / "0000" / "model.pth")
    assert record["widths"]["stage7.hidden.17"] == 480 == model.get_submodule("features.17.conv.0.0").out_channels
    masked = weights(model).values()
    zeros = sum(int((weight == 0).sum()) for weight in masked) / sum(weight.numel() for weight in masked)
    assert zeros == pytest.approx(0.6, abs=1e-3)

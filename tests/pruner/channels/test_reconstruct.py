"""Removal curves, repair, and budgets: exact where algebra says so, better where it matters."""

from __future__ import annotations

import copy
import itertools
import json
import time
import weakref
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2

from processes import Invoke, running
from pruner.channels.allocation import WidthOptions, allocate
from pruner.channels.features import BATCH
from pruner.channels.importance import Scores, score_channels
from pruner.channels.obs import obs_error_curve
from pruner.channels.plan import ChannelPlan, apply_plan, compose_plans, interpolate_plan, make_plan
from pruner.channels.reconstruct import fit, reconstruct, record_targets
from pruner.data.batches import map_batches
from pruner.data.datasets import Dataset, Split
from pruner.errors import InputError
from pruner.measurement.measure import accuracy, evaluate
from pruner.network.count import layers
from pruner.network.loading import load_network
from pruner.network.mobilenet import widths
from pruner.network.structure import GROUPS, STAGES
from pruner.recipe import Iterative, Prune
from pruner.system.checkpoint import load_state
from pruner.system.cores import core_count
from records import figures, status
from repository import STUDIES
from studies import Finished, WriteStudy

SIZE = 32


def images_of(split: Split, batch: int = 64) -> Iterator[Tensor]:
    return map_batches(lambda inputs, *_: inputs, split, batch_size=batch, resolution=SIZE)


@pytest.fixture(scope="module")
def trained(dense: MobileNetV2, images: Split) -> MobileNetV2:
    """Random weights, but BatchNorm knows the features that they make, as in a network that was trained."""
    model = copy.deepcopy(dense)
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    with torch.inference_mode():
        model(next(images_of(images, batch=512)))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


@pytest.fixture(scope="module")
def images(data: Dataset) -> Split:
    return data.train.first(512)


@pytest.fixture(scope="module")
def curves(trained: MobileNetV2, images: Split) -> Scores:
    return score_channels(trained, "obs", images, resolution=SIZE)


def least_squares_error(weight: Tensor, features: Tensor, kept: list[int]) -> float:
    """What is left of weight @ features when only the kept features may be read, by brute force."""
    centred = features - features.mean(0)
    target = centred @ weight.T
    solution = torch.linalg.lstsq(centred[:, kept], target).solution
    return float((target - centred[:, kept] @ solution).square().sum() / len(features))


def test_the_error_of_a_cut_is_that_of_the_best_refit() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(500, 12, generator=generator, dtype=torch.float64)
    features = features @ torch.randn(12, 12, generator=generator, dtype=torch.float64) + 3
    weights = [torch.randn(5, 12, generator=generator, dtype=torch.float64) for _ in range(2)]
    centred = features - features.mean(0)
    covariance = centred.T @ centred / len(features)
    order, errors = obs_error_curve(weights, [covariance, covariance], [1.0, 0.5], [0.0, 0.0])
    assert sorted(order.tolist()) == list(range(12))
    for count in range(1, 12):
        kept = [channel for channel in range(12) if channel not in order[:count].tolist()]
        wanted = sum(share * least_squares_error(weight, features, kept)
                     for weight, share in zip(weights, (1.0, 0.5), strict=True))  # fmt: skip
        assert float(errors[count - 1]) == pytest.approx(wanted, rel=1e-6)
    first = [
        sum(share * least_squares_error(weight, features, [c for c in range(12) if c != channel])
            for weight, share in zip(weights, (1.0, 0.5), strict=True))
        for channel in range(12)
    ]  # fmt: skip
    assert first.index(min(first)) == int(order[0])


def test_ridge_leaves_the_weights_where_the_images_say_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.cat([torch.randn(5000, 3, generator=generator), torch.zeros(5000, 2)], 1).double()
    true = torch.randn(4, 5, generator=generator).double()
    start = torch.randn(4, 5, generator=generator).double()
    weight, _, _ = fit(features, features @ true.T, start)
    assert torch.allclose(weight[:, :3], true[:, :3], atol=1e-3)
    assert torch.equal(weight[:, 3:], start[:, 3:])


def test_a_masked_weight_is_fitted_where_it_may_be_other_than_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(4000, 6, generator=generator).double() @ torch.randn(6, 6, generator=generator).double()
    target = features @ torch.randn(6, 3, generator=generator).double() + 2
    support = torch.rand(3, 6, generator=generator) < 0.6
    weight, means, wanted = fit(features, target, torch.randn(3, 6, generator=generator).double(), support)
    assert not weight[~support].any()
    for row, places in enumerate(support):
        centred = features[:, places] - means[places]
        best = torch.linalg.lstsq(centred, target[:, row, None] - wanted[row]).solution[:, 0]
        assert torch.allclose(weight[row, places], best, atol=1e-2)


def test_every_group_has_its_readers(trained: MobileNetV2) -> None:
    width = widths(trained)
    for group in GROUPS:
        for reader in group.readers:
            weight = trained.get_submodule(reader.layer).weight
            assert isinstance(weight, Tensor)
            assert weight.shape[1] == width[group.name]
    assert len({reader.layer for group in GROUPS for reader in group.readers}) == 17 + 17 + 1


def test_a_curve_never_falls_and_its_order_is_the_ranking(trained: MobileNetV2, curves: Scores) -> None:
    for name, width in widths(trained).items():
        assert len(curves[name]) == width
        assert (curves[name] >= 0).all()
        assert curves[name].isfinite().all()
    plan = make_plan(trained, Prune(importance="obs", pruning_ratio={"stage6": 0.5}), curves)
    gone = set(range(widths(trained)["stage6.hidden.15"])) - set(plan.keep["stage6.hidden.15"])
    worst_gone = max(float(curves["stage6.hidden.15"][channel]) for channel in gone)
    assert all(float(curves["stage6.hidden.15"][channel]) >= worst_gone for channel in plan.keep["stage6.hidden.15"])


def outputs(model: MobileNetV2, split: Split) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(batch) for batch in images_of(split)])


@pytest.fixture(scope="module")
def learned(invoke: Invoke, tmp_path_factory: pytest.TempPathFactory) -> MobileNetV2:
    """A network that knows the digits, so that a cut has something to lose."""
    folder = tmp_path_factory.mktemp("learned")
    (folder / "learned.toml").write_text(
        f'extends = "{STUDIES / "quickstart.toml"}"\ndata.resolution = {SIZE}\ndense.epochs = 8\n'
    )
    invoke("train-dense", folder / "learned.toml", "--runs", folder, "--out", folder / "learned.pth")
    return load_network(folder / "learned.pth").eval()


@pytest.mark.slow
@pytest.mark.parametrize("importance", ["random", "l2", "obs"])
def test_repair_saves_what_a_cut_would_lose(importance: str, learned: MobileNetV2, data: Dataset) -> None:
    scores = score_channels(learned, importance, data.train, resolution=SIZE)
    plan = make_plan(learned, Prune(pruning_ratio=dict.fromkeys(STAGES, 0.4), output_pruning_ratio={}), scores)
    model = apply_plan(learned, plan)
    before = accuracy(evaluate(model, data.holdout, resolution=SIZE))
    reconstruct(model, record_targets(learned, data.train, resolution=SIZE), plan, data.train, resolution=SIZE)
    assert accuracy(evaluate(model, data.holdout, resolution=SIZE)) > before + 0.1
    assert widths(model) == plan.kept_widths


def test_repair_of_a_network_that_lost_only_copies_gives_its_outputs_back(dense: MobileNetV2, images: Split) -> None:
    model = copy.deepcopy(dense)
    block = model.get_submodule("features.5.conv")
    width = block.get_submodule("0.0").weight.shape[0]
    with torch.no_grad():
        for name in ("0.0.weight", "0.1.weight", "0.1.bias", "1.0.weight", "1.1.weight", "1.1.bias"):
            part = block.get_parameter(name)
            part[width // 2 :] = part[: width // 2]
    scores = {group.name: torch.arange(widths(model)[group.name], 0, -1).float() for group in GROUPS}
    plan = make_plan(
        model,
        Prune(pruning_ratio={"stage3": 0.5}, ignored_layers=("features.4", "features.6"), output_pruning_ratio={}),
        scores,
    )
    assert plan.kept_widths["stage3.hidden.5"] == width // 2
    pruned = apply_plan(model, plan)
    dense_outputs = outputs(model, images)
    spread = dense_outputs.std()
    assert (outputs(pruned, images) - dense_outputs).abs().max() > 1e-3 * spread
    reconstruct(pruned, record_targets(model, images, resolution=SIZE), plan, images, resolution=SIZE)
    assert (outputs(pruned, images) - dense_outputs).abs().max() < 2e-2 * spread


def half_of_stage_6(trained: MobileNetV2, curves: Scores) -> tuple[ChannelPlan, MobileNetV2]:
    """A plan without half of stage 6, and the network that it leaves."""
    plan = make_plan(trained, Prune(importance="obs", pruning_ratio={"stage6": 0.5}), curves)
    model = apply_plan(trained, plan)
    return plan, model


def test_a_repaired_network_trains_on_from_what_evaluation_saw(
    trained: MobileNetV2, images: Split, curves: Scores
) -> None:
    """BatchNorm's statistics are those of the new features, so batch statistics change little."""
    plan, model = half_of_stage_6(trained, curves)
    reconstruct(model, record_targets(trained, images, resolution=SIZE), plan, images, resolution=SIZE)
    norm = model.get_submodule("features.15.conv.3")
    seen: list[Tensor] = []
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    outputs(model, images)
    batch = torch.cat(seen)
    mean, variance = batch.mean((0, 2, 3)), batch.var((0, 2, 3))
    assert torch.allclose(norm.running_mean, mean, atol=0.05 * float(variance.max().sqrt()))
    assert torch.allclose(norm.running_var, variance, rtol=0.2)


def test_reconstruction_holds_the_maps_of_all_images_only_once_and_never_the_expanded_ones(
    trained: MobileNetV2, images: Split, curves: Scores
) -> None:
    plan, model = half_of_stage_6(trained, curves)
    alive: list[weakref.ref[Tensor]] = []
    held: list[int] = []

    def count(module: nn.Module, _inputs: tuple[Tensor, ...], maps: Tensor) -> None:
        alive.append(weakref.ref(maps))
        held.append(sum(found.nbytes for ref in list(alive) if (found := ref()) is not None))

    targets = record_targets(trained, images, resolution=SIZE)
    for layer in model.modules():
        if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d)):
            layer.register_forward_hook(count)
    reconstruct(model, targets, plan, images, resolution=SIZE)
    stem, expanded = (32 * (SIZE // 2) ** 2 * 4, 96 * (SIZE // 2) ** 2 * 4)  # bytes an image
    under_way = 3 * expanded * BATCH * (core_count() + 1)
    assert max(held) < 1.1 * stem * len(images) + under_way


# ---------------------------------------------------------------- budgets


def area(some: Mapping[str, int]) -> float:
    return some["a"] * some["b"] + 3 * some["b"] + some["c"]


MENUS = {
    "a": WidthOptions([8, 7, 6, 5, 4, 3, 2, 1], [0, 0.1, 0.3, 0.7, 1.5, 3, 6, 12]),
    "b": WidthOptions([6, 4, 2], [0, 1, 4]),
    "c": WidthOptions([10, 5], [0, 0.01]),
}


@pytest.mark.parametrize("how", ["error", "lagrangian"])
@pytest.mark.parametrize("target", [20.0, 40.0, 60.0])
def test_a_budget_is_kept_and_used_up(how: str, target: float) -> None:
    found = allocate(MENUS, area, target, how)
    assert area(found) <= target
    for name, menu in MENUS.items():
        place = menu.widths.index(found[name])
        if place:
            assert area({**found, name: menu.widths[place - 1]}) > target


@pytest.mark.parametrize("target", [20.0, 30.0, 40.0, 60.0])
def test_exchange_is_near_the_best_of_all_combinations(target: float) -> None:
    def error(some: Mapping[str, int]) -> float:
        return sum(menu.errors[menu.widths.index(some[name])] for name, menu in MENUS.items())

    combinations = (dict(zip(MENUS, point, strict=True))
                    for point in itertools.product(*(menu.widths for menu in MENUS.values())))  # fmt: skip
    best = min(error(some) for some in combinations if area(some) <= target)
    assert error(allocate(MENUS, area, target, "lagrangian")) <= 1.5 * best + 0.1


def test_a_budget_that_cannot_be_kept_is_told() -> None:
    with pytest.raises(InputError, match="target_mflops: 5 cannot be reached, the smallest widths make 13"):
        allocate(MENUS, area, 5, "error")


@pytest.mark.parametrize("allocation", ["uniform", "equal_error", "lagrangian"])
def test_a_target_is_met_within_a_percent_and_bounds_hold(
    allocation: str, trained: MobileNetV2, curves: Scores
) -> None:
    for target in (30.0, 60.0):
        prune = Prune(
            target_mflops=target, allocation=allocation, round_to=2, min_channels=4, ignored_layers=("stage1",)
        )
        plan = make_plan(trained, prune, score_channels(trained, "l1"), curves)
        assert 0.97 * target <= plan.mflops <= target
        kept = plan.kept_widths
        assert kept["stage1.output"] == 16
        assert all(width % 2 == 0 and width >= 4 for width in kept.values())


def test_more_tolerance_cuts_more(trained: MobileNetV2, curves: Scores) -> None:
    def operations(stage: str, **error_scale: float) -> int:
        kept = make_plan(trained, Prune(target_mflops=60.0, error_scale=error_scale), curves, curves).kept_widths
        return sum(layer.operations for layer in layers(kept, 10) if layer.stage == stage)

    assert operations("stage6", stage6=10.0) < operations("stage6")
    assert operations("stage3", stage6=10.0) >= operations("stage3")
    plain = make_plan(trained, Prune(target_mflops=60.0), curves, curves).kept_widths
    narrow = make_plan(trained, Prune(target_mflops=60.0, error_scale={"output": 10.0}), curves, curves).kept_widths
    assert narrow["stage4.output"] < plain["stage4.output"]


# ---------------------------------------------------------------- in a study


@pytest.mark.slow
def test_a_study_cuts_to_a_target_with_repair(invoke: Invoke, write_study: WriteStudy, tmp_path: Path) -> None:
    study = write_study(TARGETS, without=["space.pruning_ratio"])
    invoke("run", study, "--runs", tmp_path / "a")
    done = status(invoke, study, tmp_path / "a")
    for record in done["records"]:
        assert record["state"] == "done"
        assert 0.97 * record["sampled"]["target_mflops"] <= record["mflops"] <= record["sampled"]["target_mflops"]
    assert load_state(next((tmp_path / "a/tiny/scores").glob("obs-*.pt"))) is not None
    result = json.loads((tmp_path / "a/tiny/trials/0000/recipe.json").read_text())
    assert result["recipe"]["prune"]["reconstruct"] is True
    invoke("run", study, "--runs", tmp_path / "b")
    assert figures(status(invoke, study, tmp_path / "b")) == figures(done)


TARGETS = """
trials = 2
[space]
importance = ["l2", "obs"]
target_mflops = { low = 20.0, high = 60.0 }
allocation = ["equal_error", "lagrangian"]
reconstruct = true
[space.error_scale]
stage6 = { low = 0.5, high = 2.0, log = true }
[prune]
reconstruction_images = 64
"""


ROUNDS_AND_PHASES = """
trials = 1
[space]
importance = ["l1", "obs"]
target_mflops = 40
reconstruct = true
[prune]
reconstruction_images = 128
[iterative]
steps = 3
[iterative.train]
images_per_epoch = 64
[train]
distill_temperature = 4
ema_decay = 0.9
bn_recalibration_images = 64
[[train.phases]]
epochs = 2
[[train.phases]]
epochs = 2
resolution = 48
lr_scale = 0.5
"""


@pytest.mark.slow
def test_rounds_and_phases_that_are_killed_in_each_end_in_the_same_file(
    invoke: Invoke, write_study: WriteStudy, finished: Finished, tmp_path: Path
) -> None:
    base = next((finished[1] / "dense").glob("*.pth"))
    study = write_study(ROUNDS_AND_PHASES, without=["space.pruning_ratio", "train.epochs", "train.optimizer"])
    options = ("--dense", base, "--threads", 1)
    invoke("run", study, "--runs", tmp_path / "a", *options)
    whole = tmp_path / "a/tiny/trials/0000"
    history = json.loads((whole / "measurement.json").read_text())["history"]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    killed = tmp_path / "b/tiny/trials/0000"
    for after in (1, 3, 5):  # the first ends a round, the others are within a phase each
        with running("worker", study, "--runs", tmp_path / "b", *options) as process:
            while process.poll() is None and not (
                (killed / "log.txt").exists() and f"epoch {after}, " in (killed / "log.txt").read_text()
            ):
                time.sleep(0.005)
            process.kill()
    assert not (killed / "model.pth").exists(), "killed too late to show anything"
    invoke("run", study, "--runs", tmp_path / "b", *options)
    assert (killed / "model.pth").read_bytes() == (whole / "model.pth").read_bytes()


def test_plans_on_the_way_hold_what_the_last_keeps(trained: MobileNetV2, curves: Scores) -> None:
    plan = make_plan(trained, Prune(target_mflops=40.0), curves, curves)
    targets = Iterative(steps=3).targets(plan.dense_mflops, plan.mflops)
    assert targets == pytest.approx((318.97 ** (2 / 3) * 40 ** (1 / 3), 318.97 ** (1 / 3) * 40 ** (2 / 3)), rel=0.01)
    assert Iterative(mflops=(500, 180, 80, 30)).targets(319, 40) == (180, 80)
    before, model = None, trained
    for target in targets:
        step = interpolate_plan(plan, curves, target, 10)
        assert step.mflops == pytest.approx(target, rel=0.03)
        for name, channels in plan.keep.items():
            assert set(channels) <= set(step.keep[name])
        model = apply_plan(model, compose_plans(before, step) if before else step)
        before = step
    assert before is not None
    last, straight = apply_plan(model, compose_plans(before, plan)), apply_plan(trained, plan)
    assert all(torch.equal(a, b) for a, b in zip(last.parameters(), straight.parameters(), strict=True))

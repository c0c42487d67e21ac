"""Channel plans: what is asked for is what comes out."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import torch
import torch_pruning as tp
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.channels.importance import Scores, score_channels
from pruner.channels.plan import ChannelPlan, apply_plan, kept, make_plan
from pruner.errors import InputError
from pruner.network.mobilenet import architecture_difference, fresh, widths
from pruner.network.structure import GROUPS, STAGES
from pruner.recipe import Prune

DENSE_WIDTHS = {"stage1": 32, "stage2": 96, "stage3": 144, "stage4": 192, "stage5": 384, "stage6": 576, "stage7": 960}


@pytest.fixture(scope="module")
def scores(dense: MobileNetV2) -> Scores:
    return score_channels(dense, "l2")


def everywhere(pruning_ratio: float, **more: object) -> Prune:
    stages = dict.fromkeys(STAGES, pruning_ratio)
    return Prune(pruning_ratio=stages, output_pruning_ratio={s: c for s, c in stages.items() if s != "head"}, **more)  # type: ignore[arg-type]


@given(
    width=st.integers(1, 1500),
    cuts=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    min_channels=st.integers(1, 40),
    round_to=st.sampled_from([1, 2, 4, 8, 16, 32]),
)
@settings(max_examples=400)
def test_kept_never_rises_with_the_cut_and_keeps_its_bounds(
    width: int, cuts: tuple[float, float], min_channels: int, round_to: int
) -> None:
    less, more = sorted(cuts)
    few, many = kept(width, more, min_channels, round_to), kept(width, less, min_channels, round_to)
    assert few <= many
    assert min(width, min_channels) <= few <= width
    assert few % round_to == 0 or few == width
    assert kept(width, 0.0, min_channels, round_to) == width


@given(width=st.integers(1, 1500), pruning_ratio=st.floats(0, 0.999), min_channels=st.integers(1, 5))
def test_kept_is_the_rounded_share(width: int, pruning_ratio: float, min_channels: int) -> None:
    assert kept(width, pruning_ratio, min_channels) == min(width, max(min_channels, round(width * (1 - pruning_ratio))))


@pytest.mark.parametrize("pruning_ratio", [0.1, 0.5, 0.66, 0.7, 0.95, 0.99])
@pytest.mark.parametrize("round_to", [1, 8])
def test_every_group_gets_the_width_asked_for(
    dense: MobileNetV2, scores: Scores, pruning_ratio: float, round_to: int
) -> None:
    plan = make_plan(dense, everywhere(pruning_ratio, round_to=round_to, min_channels=2), scores)
    expected = {name: kept(width, pruning_ratio, 2, round_to) for name, width in widths(dense).items()}
    assert plan.kept_widths == expected
    assert widths(apply_plan(dense, plan)) == expected


def test_stages_are_cut_one_by_one(dense: MobileNetV2, scores: Scores) -> None:
    plan = make_plan(dense, Prune(pruning_ratio={"stage4": 0.5}, output_pruning_ratio={"stage5": 0.25}), scores)
    changed = {name for name, width in plan.kept_widths.items() if width != widths(dense)[name]}
    assert changed == {f"stage4.hidden.{block}" for block in (7, 8, 9, 10)} | {"stage5.output"}
    assert plan.kept_widths["stage4.hidden.7"] == 96  # block 7 expands stage 3's 32 channels
    assert plan.kept_widths["stage5.output"] == 72


def test_mflops_never_rise_when_a_cut_grows(dense: MobileNetV2, scores: Scores) -> None:
    for prune in (everywhere, lambda pruning_ratio, **k: Prune(global_pruning_ratio=pruning_ratio, **k)):
        for round_to in (1, 8):
            counts = [
                make_plan(dense, prune(pruning_ratio, round_to=round_to), scores).mflops
                for pruning_ratio in (0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99)
            ]
            assert counts == sorted(counts, reverse=True)
            assert counts[-1] < 0.12 * counts[0]


@pytest.mark.parametrize("seed", range(4))
def test_a_plan_knows_what_the_grader_will_count_before_the_network_is_cut(
    dense: MobileNetV2, scores: Scores, seed: int
) -> None:
    chance = random.Random(seed)
    pruning_ratio, output_pruning_ratio = (
        {stage: chance.random() for stage in stages} for stages in (STAGES, STAGES[:-1])
    )
    for side in (224, (160, 97, 75, 32)[seed]):
        prune = Prune(
            pruning_ratio=pruning_ratio, output_pruning_ratio=output_pruning_ratio, count_resolution=side,
        )  # fmt: skip
        plan = make_plan(dense, prune, scores)
        operations, params = tp.utils.count_ops_and_params(apply_plan(dense, plan), torch.zeros(1, 3, side, side))
        assert plan.mflops == operations / 1e6
        assert plan.params == params
    plan = make_plan(dense, replace(prune, count_resolution=224), scores)
    assert (plan.dense_mflops, plan.dense_params) == (pytest.approx(318.969, abs=1e-3), 2_236_682)
    assert plan.mflops_removed == 1 - plan.mflops / plan.dense_mflops


def test_a_plan_replays_bit_for_bit_from_json(dense: MobileNetV2, scores: Scores) -> None:
    before = {name: value.clone() for name, value in dense.state_dict().items()}
    plan = make_plan(dense, everywhere(0.4), scores)
    replayed = ChannelPlan.from_json(json.loads(json.dumps(plan.as_json())))
    assert replayed == plan
    first, second = apply_plan(dense, plan), apply_plan(dense, replayed)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(first.eval()(images), second.eval()(images))
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())
    assert architecture_difference(first) is None


def test_the_best_channels_stay(dense: MobileNetV2, scores: Scores) -> None:
    plan = make_plan(dense, everywhere(0.5), scores)
    for name, channels in plan.keep.items():
        stay = torch.zeros(len(scores[name]), dtype=torch.bool)
        stay[list(channels)] = True
        assert scores[name][stay].min() >= scores[name][~stay].max()


def test_cutting_channels_that_are_zero_changes_nothing() -> None:
    model = fresh(10, seed=1).eval()
    victim = model.features[5].conv
    with torch.no_grad():
        victim[2].weight[:, ::2] = 0  # what the projection does not read may go
    scores = {name: torch.ones(width) for name, width in widths(model).items()}
    scores["stage3.hidden.5"][::2] = 0
    plan = make_plan(model, Prune(pruning_ratio={"stage3": 0.5}, ignored_layers=("features.4", "features.6")), scores)
    images = torch.rand(2, 3, 64, 64)
    assert plan.kept_widths["stage3.hidden.5"] == 96
    torch.testing.assert_close(apply_plan(model, plan).eval()(images), model(images), rtol=1e-4, atol=1e-5)


def test_a_global_cut_removes_the_fraction_asked_for(dense: MobileNetV2, scores: Scores) -> None:
    total = sum(widths(dense).values())
    for pruning_ratio in (0.3, 0.5):
        plan = make_plan(dense, Prune(global_pruning_ratio=pruning_ratio, normalizer="max"), scores)
        assert sum(plan.kept_widths.values()) == pytest.approx(total * (1 - pruning_ratio), abs=len(GROUPS))
        assert len({round(width / widths(dense)[name], 2) for name, width in plan.kept_widths.items()}) > 5
    deep = make_plan(dense, Prune(global_pruning_ratio=0.99, min_channels=3), scores)
    assert min(deep.kept_widths.values()) == 3


def test_what_is_ignored_stays_whole(dense: MobileNetV2, scores: Scores) -> None:
    with_residual = {3, 5, 6, 8, 9, 10, 12, 13, 15, 16}
    for prune in (
        Prune(global_pruning_ratio=0.8, ignored_layers=("residual", "classifier")),
        everywhere(0.8, ignored_layers=("residual",)),
    ):
        plan = make_plan(dense, prune, scores)
        pruned = apply_plan(dense, plan)
        for block in with_residual:
            for name, parameter in dense.features[block].named_parameters():
                assert pruned.features[block].get_parameter(name).shape == parameter.shape
        assert plan.mflops < 0.8 * plan.dense_mflops
        assert pruned.classifier[1].out_features == 10
    stage = make_plan(dense, everywhere(0.5, ignored_layers=("stage2", "head")), scores).kept_widths
    assert (stage["stage2.output"], stage["head"], stage["stage3.output"]) == (24, 1280, 16)


def test_bad_requests_are_one_line(dense: MobileNetV2, scores: Scores) -> None:
    for bad in (1.0, 1.5, -0.1):
        with pytest.raises(InputError, match=r"input should be (less|greater) than"):
            Prune(pruning_ratio={"stage1": bad})
        with pytest.raises(InputError, match=r"input should be (less|greater) than"):
            Prune(global_pruning_ratio=bad)
    with pytest.raises(InputError, match="stage9"):
        Prune(pruning_ratio={"stage9": 0.5})
    with pytest.raises(InputError, match=r"features\.77"):
        Prune(ignored_layers=("features.77",))
    plan = make_plan(dense, everywhere(0.5), scores)
    with pytest.raises(InputError, match="other widths"):
        apply_plan(apply_plan(dense, plan), plan)

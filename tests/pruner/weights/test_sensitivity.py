"""Scans: what a cut or a mask costs layer by layer, and what is made of that."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from torchvision.models.mobilenetv2 import MobileNetV2

from processes import Invoke
from pruner.channels.importance import score_channels
from pruner.channels.plan import apply_plan, make_plan
from pruner.data.datasets import Dataset
from pruner.errors import InputError
from pruner.measurement.measure import evaluate, nonzero_params
from pruner.network.loading import load_network
from pruner.recipe import Mask, Prune
from pruner.weights.masks import (
    apply_masks,
    make_masks,
    score_weights,
    threshold_mask,
)  # fmt: skip
from pruner.weights.sensitivity import allocate_sparsity, scan_channels, scan_weights
from studies import Finished


def test_a_scan_gives_what_computing_everything_anew_gives(narrow: MobileNetV2, data: Dataset) -> None:
    split = data.holdout.first(100)
    scores, before = score_weights(narrow, "magnitude"), copy.deepcopy(narrow.state_dict())
    chosen = {name: score for name, score in scores.items() if name.split(".")[1] in ("0", "1", "6", "17", "18")}
    skip = {(name, s) for name in scores for s in (0.3, 0.95) if name not in chosen} | {("features.0.0.weight", 0.3)}
    found = list(scan_weights(narrow, split, scores, [0.3, 0.95], resolution=32, skip=skip))
    assert len(found) == 2 * len(chosen) - 1
    for point in found:
        model = copy.deepcopy(narrow)
        apply_masks(model, {point.name: threshold_mask(scores[point.name], point.sparsity)})
        assert evaluate(model, split, resolution=32, batch_size=50).float().mean().item() == pytest.approx(
            point.accuracy
        )
    assert all(value.equal(before[name]) for name, value in narrow.state_dict().items())


def test_a_scan_of_cuts_does_so_too(narrow: MobileNetV2, data: Dataset) -> None:

    split, scores = data.holdout.first(50), score_channels(narrow, "l2")
    for point in scan_channels(narrow, split, scores, [0.6], resolution=32):
        model = apply_plan(narrow, make_plan(narrow, Prune(pruning_ratio={point.name: 0.6}), scores))
        assert evaluate(model, split, resolution=32, batch_size=50).float().mean().item() == pytest.approx(
            point.accuracy
        )


@pytest.mark.slow
def test_scan_by_command_goes_on_where_it_was(invoke: Invoke, finished: Finished, tmp_path: Path) -> None:
    _, runs, _ = finished
    (dense,) = (runs / "dense").glob("*.pth")
    out = tmp_path / "scan.json"
    common = (
        "sensitivity",
        dense,
        "--data",
        "digits",
        "--resolution",
        32,
        "--images",
        20,
        "--out",
        out,
        "--what",
        "channels",
    )
    first = json.loads(invoke(*common, "--start", 0.5, "--end", 0.5, "--json"))
    assert [point["name"] for point in first["points"]] == ["stage1", "stage2", "stage3", "stage4", "stage5", "stage6",
                                                           "stage7", "head"]  # fmt: skip
    more = json.loads(invoke(*common, "--start", 0.3, "--end", 0.5, "--step", 0.2, "--json"))
    assert more["points"][:8] == first["points"]
    assert len(more["points"]) == 16
    assert "Sensitivity by layer" in out.with_suffix(".html").read_text()
    assert invoke(*common, "--start", 0.5, "--end", 0.5).count("%") >= 9
    place = [
        tmp_path / "r" if argument == out else "--runs" if argument == "--out" else argument for argument in common
    ]
    invoke(*place, "--start", 0.5, "--end", 0.5, "--images", 2)
    assert {path.suffix for path in (tmp_path / "r" / "scans").glob(f"{dense.stem}-*")} == {".json", ".html"}


@pytest.mark.slow
def test_a_target_size_is_met_by_what_a_scan_spreads(invoke: Invoke, finished: Finished, tmp_path: Path) -> None:
    _, runs, _ = finished
    (dense,) = (runs / "dense").glob("*.pth")
    scan = ("sensitivity", dense, "--data", "digits", "--resolution", 32, "--images", 2, "--out", tmp_path / "s.json")
    found = json.loads(invoke(*scan, "--start", 0.9, "--end", 0.9, "--nonzero", 0.25, "--json"))
    assert len(found["points"]) == 53
    model = load_network(dense)
    apply_masks(model, make_masks(score_weights(model, "magnitude"), Mask(sparsity=found["allocation"])))
    total = sum(parameter.numel() for parameter in model.parameters())
    assert nonzero_params(model) == pytest.approx(0.25 * total, rel=1e-3)
    assert '"classifier.1.weight" = ' in invoke(*scan, "--start", 0.9, "--end", 0.9, "--nonzero", 0.25)


def test_sparsities_are_spread_where_they_cost_least() -> None:
    curves = {"a": {0.5: 0.9, 0.9: 0.9}, "b": {0.5: 0.9, 0.9: 0.2}, "c": {0.5: 0.5, 0.9: 0.1}}
    sizes = {"a": 100, "b": 100, "c": 100}
    found = allocate_sparsity(curves, sizes, dense=0.9, nonzero=0.6)
    assert found == pytest.approx({"a": 0.9, "b": 0.3, "c": 0.0})
    tight = allocate_sparsity(curves, sizes, dense=0.9, nonzero=0.5)
    assert sum(tight.values()) == pytest.approx(1.5)
    assert tight["a"] == pytest.approx(0.9) and tight["b"] >= 0.5 and tight["c"] < tight["b"]
    with pytest.raises(InputError, match="scan higher"):
        allocate_sparsity(curves, sizes, dense=0.9, nonzero=0.05)

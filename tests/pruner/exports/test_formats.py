"""A pruned network in every form that leaves the program, and how long it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.mobilenetv2 import MobileNetV2

from processes import Invoke
from pruner.channels.importance import score_channels
from pruner.channels.plan import ChannelPlan, apply_plan, make_plan
from pruner.errors import InputError
from pruner.exports import formats
from pruner.measurement.latency import latency
from pruner.network.loading import load_network
from pruner.network.mobilenet import widths
from pruner.network.structure import STAGES
from pruner.recipe import Prune


@pytest.fixture(scope="module")
def pruned(dense: MobileNetV2) -> tuple[nn.Module, ChannelPlan]:
    """Not quite half of every stage, with outputs as large as a trained network's."""
    plan = make_plan(dense, Prune(pruning_ratio=dict.fromkeys(STAGES, 0.45)), score_channels(dense, "l2"))
    model = apply_plan(dense, plan)
    with torch.no_grad():
        images = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(3))
        layer = model.get_submodule("classifier.1")
        layer.weight *= 7.5 / model(images).std()  # type: ignore[operator, arg-type]
    return model, plan


slow = pytest.mark.slow
not_here = pytest.mark.skipif("pte" not in formats.available(), reason="needs prune-search[executorch]")


@pytest.mark.parametrize(
    "format",
    ["pth", "safetensors", pytest.param("onnx", marks=slow), "pt2", pytest.param("pte", marks=[slow, not_here])],
)
def test_each_format_gives_the_same_outputs_when_loaded_again(
    pruned: tuple[nn.Module, ChannelPlan], format: str, tmp_path: Path
) -> None:
    model, plan = pruned
    done = formats.export(model, tmp_path / "m.1", format, plan=plan.as_json(), resolution=64)
    assert done.file == tmp_path / f"m.1.{format}"
    assert done.size_bytes == done.file.stat().st_size > 1_000_000
    assert done.worst_difference <= (0.0 if format in ("pth", "safetensors") else 1e-4)


def test_a_file_that_gives_other_outputs_is_removed(
    pruned: tuple[nn.Module, ChannelPlan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plan = pruned
    monkeypatch.setattr(formats, "CLOSE", -1.0)  # even equal is not close enough
    with pytest.raises(AssertionError, match="differ"):
        formats.export(model, tmp_path / "m", "safetensors", plan=plan.as_json(), resolution=64)
    assert not (tmp_path / "m.safetensors").exists()


def test_safetensors_and_plan_are_the_network_without_pickle(
    pruned: tuple[nn.Module, ChannelPlan], tmp_path: Path
) -> None:
    model, plan = pruned
    path = formats.export(model, tmp_path / "m", "safetensors", plan=plan.as_json(), resolution=64).file
    assert ChannelPlan.from_json(json.loads((tmp_path / "m.plan.json").read_text())) == plan
    again = load_network(path)
    assert widths(again) == plan.kept_widths
    assert all(value.equal(model.state_dict()[name]) for name, value in again.state_dict().items())
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_network(path)


@pytest.mark.slow
def test_a_torch_export_program_runs_without_any_of_our_packages(
    pruned: tuple[nn.Module, ChannelPlan], tmp_path: Path
) -> None:
    model, plan = pruned
    path = formats.export(model, tmp_path / "m", "pt2", plan=plan.as_json(), resolution=64).file
    code = (
        "import sys; sys.modules['pruner'] = sys.modules['search'] = sys.modules['torchvision'] = None; import torch; "
        f"print(torch.export.load({str(path)!r}).module()(torch.ones(5, 3, 64, 64)).sum().item())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert float(done.stdout) == pytest.approx(model.eval()(torch.ones(5, 3, 64, 64)).sum().item(), abs=1e-3)


def test_latency_leaves_network_and_threads_as_they_were(pruned: tuple[nn.Module, ChannelPlan]) -> None:
    model, _ = pruned
    model.train()
    before, threads = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_num_threads()
    took = latency(model, resolution=32, threads=1, runs=5)
    assert 0 < took.median_ms <= took.p90_ms
    assert model.training and torch.get_num_threads() == threads
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_latency_by_onnxruntime(pruned: tuple[nn.Module, ChannelPlan]) -> None:
    took = latency(pruned[0], resolution=32, backend="onnxruntime", runs=5)
    assert (took.backend, took.threads) == ("onnxruntime", 1)
    assert 0 < took.median_ms <= took.p90_ms


def test_networks_side_by_side(
    pruned: tuple[nn.Module, ChannelPlan], dense: MobileNetV2, invoke: Invoke, tmp_path: Path
) -> None:
    for name, model in (("dense", dense), ("pruned", pruned[0])):
        formats.export(model, tmp_path / name, "safetensors", plan=pruned[1].as_json(), resolution=64)
    files = (tmp_path / "dense.safetensors", tmp_path / "pruned.safetensors")
    options = ("--no-grade", "--resolution", 32, "--out", tmp_path / "compared.html")
    one, other = json.loads(invoke("compare", *files, *options, "--json"))["models"]
    assert one["mflops"] == pytest.approx(318.969098)
    assert other["mflops"] == pytest.approx(pruned[1].mflops)
    for row in (one, other):
        assert sum(row["mflops_by_stage"].values()) == pytest.approx(row["mflops"])
        assert row["latency_ms"] > 0
    assert "Operations by stage" in (tmp_path / "compared.html").read_text()
    assert "318.97" in invoke("compare", *files, *options)

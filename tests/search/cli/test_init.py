"""A study file for somebody's own images, network and goal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch_pruning as tp

from pictures import write_images
from processes import Command, Invoke
from pruner.exports.module import export_module
from pruner.network.mobilenet import fresh
from search.pipeline.parts import read_parts

GOALS = [
    (("--max-mflops", 80), "accuracy", 3),
    (("--max-mflops-ratio", 0.25), "accuracy", 3),
    (("--max-accuracy-drop", 0.01), "mflops", 1),
    (("--max-accuracy-drop", 0.01, "--max-latency-ms", 20), "latency_ms", 1),
    (("--max-size-mb", 2, "--max-mflops", 100), "accuracy", 1),
    ((), "accuracy", 1),
]


@pytest.mark.parametrize(("options", "goal", "searches"), GOALS)
def test_what_it_writes_is_a_study_for_that_goal(
    tmp_path: Path, invoke: Invoke, options: tuple[object, ...], goal: str, searches: int
) -> None:
    write_images(tmp_path / "photos", {"cat": 20, "dog": 20})
    written = tmp_path / "mine.toml"
    written.write_text(invoke("init", "--data", tmp_path / "photos", "--resolution", 160, *options))
    parts = read_parts(written)
    assert len(parts) == searches
    spec = parts[0].study()
    assert (spec.goal, spec.data.root, spec.data.resolution) == (goal, str(tmp_path / "photos"), 160)
    assert spec.prune.count_resolution == 160
    for name, limit in zip(options[::2], options[1::2], strict=True):
        assert getattr(spec.constraints, str(name)[2:].replace("-", "_")) == limit


def test_a_share_of_the_dense_network_is_counted_at_the_resolution(tmp_path: Path, invoke: Invoke) -> None:
    export_module(fresh(10, 0), tmp_path / "dense.pth")
    given = ("--data", "digits", "--dense", tmp_path / "dense.pth", "--resolution", 112, "--max-mflops-ratio", 0.5)
    written = tmp_path / "mine.toml"
    written.write_text(invoke("init", *given))
    spec = read_parts(written)[0].study()
    operations, _ = tp.utils.count_ops_and_params(fresh(10, 0), torch.zeros(1, 3, 112, 112))
    assert spec.space.target_mflops == pytest.approx(0.5 * operations / 1e6, rel=1e-4)
    assert spec.dense.checkpoint == str(tmp_path / "dense.pth")
    export_module(fresh(7, 0), tmp_path / "dense.pth")
    written.write_text(invoke("init", *given))
    dense = read_parts(written)[0].study().dense
    assert (dense.checkpoint, dense.init) == (None, str(tmp_path / "dense.pth")), "for other classes: fine-tuned first"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--data", "nowhere"), "neither one of cifar10"),
        (("--data", "digits", "--max-mflops", 0), "not in the range x>0"),
        (("--data", "digits", "--max-mflops", 400), "the dense network has 3"),
        (("--data", "digits", "--max-accuracy-drop", 1.5), "not in the range 0<x<=1"),
        (("--data", "digits", "--dense", "gone.pth"), "gone.pth"),
        ((), "Missing option '--data'"),
    ],
)
def test_what_cannot_be_meant_is_told_in_a_line(command: Command, options: tuple[object, ...], message: str) -> None:
    told = command("init", *options)
    assert told.returncode == 2 and message in told.stderr and told.stderr.count("\n") == 1 and not told.stdout

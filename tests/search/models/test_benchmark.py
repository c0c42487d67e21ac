"""`benchmark`: latency and throughput, in turns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torchvision.models.mobilenetv2 import MobileNetV2

from processes import Command, Invoke
from pruner.exports.formats import export
from pruner.measurement.latency import Subject, in_turns

SMALL = ("--resolution", 32, "--runs", 3, "--batch-size", 4, "--threads", 1)


def test_networks_take_turns() -> None:
    order: list[str] = []
    subjects = [
        Subject(run=lambda name=name: order.append(name), backend="torch", threads=1, batch_size=1, resolution=8)  # type: ignore[misc]
        for name in "ab"
    ]
    told: list[None] = []
    found = in_turns(subjects, warmup=1, runs=3, on_run=lambda: told.append(None))
    assert order == ["a", "b"] * 4 and len(told) == 8
    assert [one.runs for one in found] == [3, 3]
    assert all(one.median_ms <= one.p90_ms and one.images_per_second > 0 for one in found)


@pytest.mark.slow
def test_every_backend_and_number_of_threads(invoke: Invoke, dense: MobileNetV2, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pth, onnx = (export(dense, tmp_path / "net", form, plan={}, resolution=32).file for form in ("pth", "onnx"))
    threads = torch.get_num_threads()
    found = json.loads(invoke("benchmark", pth, onnx, *SMALL, "--json"))
    assert found["machine"]["cores"] >= 1
    rows = [(Path(row["file"]).name, row["backend"], row["threads"]) for row in found["models"]]
    assert rows == [("net.pth", "torch", 1), ("net.pth", "onnxruntime", 1), ("net.onnx", "onnxruntime", 1)]
    for row in found["models"]:
        latency, throughput = row["latency"], row["throughput"]
        assert 0 < latency["median_ms"] <= latency["p90_ms"]
        assert (latency["batch_size"], latency["runs"], throughput["batch_size"]) == (1, 3, 4)
        assert row["images_per_second"] == pytest.approx(4000 / throughput["median_ms"], rel=0.01)
    assert torch.get_num_threads() == threads
    two = json.loads(invoke("benchmark", onnx, *SMALL, "--threads", 2, "--threads", 1, "--json"))["models"]
    assert [row["threads"] for row in two] == [1, 2]


def test_the_table_is_for_people(invoke: Invoke, dense: MobileNetV2, tmp_path: Path) -> None:
    pth = export(dense, tmp_path / "net", "pth", plan={}, resolution=32).file
    head, row, about = invoke("benchmark", pth, *SMALL, "--backend", "torch").splitlines()
    assert head.split() == ["model", "backend", "threads", "median", "ms", "p90", "ms", "images/s"]
    assert row.split()[:3] == ["net.pth", "torch", "1"]
    assert about.startswith("Images of 32 px, batches of 4; ")


def test_bad_input(command: Command, tmp_path: Path) -> None:
    text, onnx = tmp_path / "a.pth", tmp_path / "a.onnx"
    text.write_text("my notes")
    onnx.write_bytes(b"\x08\x0a\x12\x07pytorch\x3a\x04\x0a\x02ab\x42\x02\x10\x12")
    for arguments, word in (
        ((tmp_path / "none.pth",), "no such file"), ((text,), "is a text file"), ((), "MODEL"),
        ((onnx,), "onnx"), ((onnx, "--backend", "torch"), "torch does not run"), ((text, "--threads", 0), "--threads"),
    ):  # fmt: skip
        done = command("benchmark", *arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
        assert word in done.stderr

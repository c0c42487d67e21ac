"""A study's network in int8, by command: the file, its card, and `compare`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from processes import Command, Invoke
from pruner.data.datasets import Dataset, Split
from pruner.network.loading import load_network
from pruner.network.structure import MODULES
from search.export.int8 import quantize, warning
from search.study.spec import read_study
from search.terminal.progress import Terminal
from studies import Finished

pytestmark = pytest.mark.slow
pytest.importorskip("onnxruntime")


def test_the_card_has_int8_beside_float_and_compare_reads_both(
    invoke: Invoke, finished: Finished, tmp_path: Path
) -> None:
    study, runs, printed = finished
    where = (study, "--runs", runs, "--out", tmp_path)
    wanted = ("--format", "pth", "--format", "onnx-int8", "--keep-float", "stem,features.17.conv.2")
    card = json.loads(invoke("export", *where, *wanted, "--json"))["card"]
    int8, file = card["int8"], tmp_path / card["int8"]["file"]
    assert file.name == f"mobilenet-{printed['best']['number']}-int8.onnx"
    assert int8["size_bytes"] == file.stat().st_size < 0.6 * int8["float_bytes"]
    assert int8["float_holdout"] == card["accuracy"]["holdout"]
    assert int8["float_test"] == card["accuracy"]["test"] == printed["test"]["accuracy"]
    assert int8["keep_float"] == ["stem", "features.17.conv.2"]
    assert int8["latency"]["backend"] == int8["float_latency"]["backend"] == "onnxruntime"
    assert {one["format"] for one in card["files"]} == {"pth", "onnx-int8"}
    text = file.with_name(f"mobilenet-{printed['best']['number']}.md").read_text()
    assert "## int8" in text and f"| bytes | {int8['float_bytes']:,} | {int8['size_bytes']:,} |" in text
    again = json.loads(invoke("export", *where, "--format", "pth", "--json"))["card"]
    assert again["int8"] == int8, "the card keeps what is true of a file that is still there"
    pth = tmp_path / f"mobilenet-{printed['best']['number']}.pth"
    options = (pth, file, "--data", "digits", "--resolution", 32)
    one, other = json.loads(invoke("compare", *options, "--json"))["models"]
    assert (other["accuracy"], one["accuracy"]) == (int8["test"], int8["float_test"])
    assert other["size_bytes"] == int8["size_bytes"]
    assert (other["mflops"], other["params"]) == (pytest.approx(one["mflops"]), one["params"])
    assert one["latency_backend"] == other["latency_backend"] == "onnxruntime"
    assert one["score"] is not None and other["score"] is None


def test_neither_holdout_nor_test_images_are_used_to_calibrate(
    finished: Finished, data: Dataset, tmp_path: Path
) -> None:
    study, _, printed = finished
    spec, model = read_study(study), load_network(printed["file"])

    def other(split: Split) -> Split:
        return Split(255 - split.images, split.labels)

    # Leaves few blocks to look for the worst among.
    early = ("stem", *(f"stage{number}" for number in range(1, 7)))
    made = []
    changed = replace(data, holdout=other(data.holdout), test=other(data.test))
    for seen, reached in ((data, 1.0), (changed, 0.0)):
        with Terminal() as terminal:
            exported, int8 = quantize(
                model, tmp_path / "m", spec, seen, keep_float=early, float_holdout=reached, float_test=None,
                progress=terminal,
            )  # fmt: skip
        made.append(exported.file.read_bytes())
        assert int8.test is None
        assert (int8.worst_block in MODULES) == (reached == 1), "who is always right loses more than a point"
    assert made[0] == made[1]


def test_the_line_says_what_to_give() -> None:
    int8 = {"worst_block": "features.3", "keep_float": ["stem"], "float_holdout": 0.93, "holdout": 0.9}
    line = warning(int8)
    assert line and "3.00 points" in line and line.endswith("--keep-float stem,features.3")
    assert warning({**int8, "worst_block": None}) is None


def test_bad_input_leaves_nothing(command: Command, finished: Finished, tmp_path: Path) -> None:
    study, runs, printed = finished
    out = tmp_path / "out"
    for options, word in (
        (("--keep-float", "stem"), "--keep-float: only for --format onnx-int8"),
        (("--format", "onnx-int8", "--keep-float", "features.99"), "'features.99' is no layer"),
    ):
        done = command("export", study, "--runs", runs, "--out", out, *options)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert word in done.stderr
    assert not out.exists()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08\x0a\x12\x07pytorch\x3a\x04\x0a\x02ab\x42\x02\x10\x12")
    done = command("compare", printed["file"], broken, "--data", "digits")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert f"{broken}: not an ONNX model that onnxruntime can run" in done.stderr

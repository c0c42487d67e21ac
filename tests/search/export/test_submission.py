"""The hand-in zip: what the grader would take, and what not."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from processes import Command, Invoke
from search.export.grader import Refused, check, read
from studies import Finished

pytestmark = pytest.mark.slow
ID = "312551001"

# A grader of our own that knows nothing of this project: it grades what is in the zip, on images in a file.
GRADER = """
import io, json, sys, zipfile
sys.modules["pruner"] = sys.modules["search"] = sys.modules["optuna"] = None
import torch, torch_pruning, torchvision
from torchvision.transforms import v2
with zipfile.ZipFile(sys.argv[1]) as archive:
    model = torch.load(io.BytesIO(archive.read("model/mobilenet.pth")), weights_only=False).eval()
mflops = torch_pruning.utils.count_ops_and_params(model, torch.zeros(1, 3, 224, 224))[0] / 1e6
given = torch.load(sys.argv[2])
mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
resize = torchvision.transforms.Resize((32, 32))
images = [v2.functional.pil_to_tensor(resize(v2.functional.to_pil_image(i))) / 255 for i in given["images"]]
seen = range(0, len(images) // 64 * 64, 64)
answers = torch.cat([model(torch.stack([(i - mean) / std for i in images[k:k + 64]])).argmax(1) for k in seen])
right = answers == given["labels"][:len(answers)]
accuracy = right.float().mean().item()
print(json.dumps([mflops, accuracy, ((200 - mflops) / 155 - 10 * min(max(0.92 - accuracy, 0), 1)) * 45]))
"""


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    path = tmp_path / "mine.ipynb"
    path.write_text(json.dumps({"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def test_the_zip_is_laid_out_as_asked_and_grades_the_same_elsewhere(
    invoke: Invoke, finished: Finished, notebook: Path, tmp_path: Path
) -> None:
    from pruner.data.datasets import digits

    study, runs, printed = finished
    out = invoke("submit", study, "--runs", runs, "--id", ID, "--notebook", notebook, "--out", tmp_path, "--json")
    seen = json.loads(out)
    path = tmp_path / f"{ID}.zip"
    assert seen["file"] == str(path)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == [f"{ID}.ipynb", "model/mobilenet.pth"]
        assert archive.read(f"{ID}.ipynb") == notebook.read_bytes()
    test = digits().test
    torch.save({"images": test.images, "labels": test.labels}, tmp_path / "test.pt")
    command = [sys.executable, "-c", GRADER, str(path), str(tmp_path / "test.pt")]
    mflops, accuracy, score = json.loads(subprocess.check_output(command, text=True, cwd=tmp_path))
    assert (mflops, accuracy) == (pytest.approx(seen["mflops"]), pytest.approx(seen["accuracy"]))
    assert score == pytest.approx(seen["score"])
    assert seen["accuracy"] == pytest.approx(printed["test"]["accuracy_drop_last"])
    assert seen["score"] == pytest.approx(printed["test"]["score_drop_last"])


def test_what_cannot_be_handed_in_is_refused_in_a_line_and_leaves_nothing(
    command: Command, finished: Finished, notebook: Path, tmp_path: Path
) -> None:
    study, runs, _ = finished
    out = tmp_path / "out"
    text = tmp_path / "text.ipynb"
    text.write_text("my notes")
    for student, file, what in (
        ("../up", notebook, "--id"), ("", notebook, "--id"), (ID, text, "Jupyter"),
        (ID, tmp_path / "none", "--notebook"),
    ):  # fmt: skip
        done = command("submit", study, "--runs", runs, "--id", student, "--notebook", file, "--out", out)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert what in done.stderr
    assert not list(tmp_path.glob("**/*.zip"))


def test_the_grader_refuses_what_is_no_mobilenetv2(dense: torch.nn.Module, tmp_path: Path) -> None:
    import copy

    foreign = copy.deepcopy(dense)
    foreign.features.add_module("extra", torch.nn.Identity())  # type: ignore[union-attr, operator]
    with pytest.raises(Refused, match="no longer a MobileNetV2"):
        check(foreign)
    shorter = copy.deepcopy(dense)
    del shorter.features[18]  # type: ignore[union-attr, attr-defined]
    with pytest.raises(Refused, match=r"features\.18"):
        check(shorter)
    with pytest.raises(Refused, match="not a MobileNetV2"):
        check(torch.nn.Linear(1, 1))
    check(dense)
    (tmp_path / "bad.zip").write_bytes(b"PK")
    with pytest.raises(Refused, match="not a whole zip"):
        read(tmp_path / "bad.zip")
    with zipfile.ZipFile(tmp_path / f"{ID}.zip", "w") as archive:
        archive.writestr("mobilenet.pth", b"")
    with pytest.raises(Refused, match=r"no model/mobilenet\.pth"):
        read(tmp_path / f"{ID}.zip")

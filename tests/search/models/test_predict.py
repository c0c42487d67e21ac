"""`predict`: class names and probabilities of image files, from a network in any format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models.mobilenetv2 import MobileNetV2

from processes import Command, Invoke
from pruner.data.batches import prepared
from pruner.data.datasets import Dataset
from pruner.data.known import SMALL
from pruner.exports.formats import export
from search.models.predict import class_names

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
SIZE = ("--resolution", 32)


@pytest.fixture(scope="module")
def images(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("images")
    paths = [folder / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.fromarray(data.test.images[number].permute(1, 2, 0).numpy()).save(path)
    return paths


@pytest.fixture(scope="module")
def model(dense: MobileNetV2, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(dense, tmp_path_factory.mktemp("model") / "net", "pth", plan={}, resolution=32).file


def test_the_probabilities_are_the_networks(
    invoke: Invoke, model: Path, images: list[Path], dense: MobileNetV2, data: Dataset
) -> None:
    found = json.loads(invoke("predict", model, *images, *SIZE, "--json"))
    with torch.inference_mode():
        wanted = dense(prepared(data.test.images[:3], 32)).softmax(1)
    assert [one["image"] for one in found["predictions"]] == [str(path) for path in images]
    for one, probabilities in zip(found["predictions"], wanted, strict=True):
        top = one["top"]
        assert [guess["number"] for guess in top] == probabilities.topk(5).indices.tolist()
        assert [guess["probability"] for guess in top] == pytest.approx(probabilities.topk(5).values.tolist(), abs=1e-5)
        assert [guess["name"] for guess in top] == [f"class {guess['number']}" for guess in top]


def test_a_block_for_each_image(invoke: Invoke, model: Path, images: list[Path]) -> None:
    lines = invoke("predict", model, *images, *SIZE, "--data", "cifar10", "--top", 2).splitlines()
    assert lines[::3] == [str(path) for path in images]
    assert all("%  " in line for line in (*lines[1::3], *lines[2::3])) and len(lines) == 9
    assert len(invoke("predict", model, images[0], *SIZE, "--top", 99).splitlines()) == 11


@pytest.mark.slow
def test_safetensors_and_onnx_say_the_same(
    invoke: Invoke, model: Path, images: list[Path], dense: MobileNetV2, data: Dataset, tmp_path: Path
) -> None:
    from pruner.exports.int8 import calibrate, export_int8

    files = [export(dense, tmp_path / "net", form, plan={}, resolution=32).file for form in ("safetensors", "onnx")]
    files.append(export_int8(calibrate(dense, data.train.first(16), resolution=32), tmp_path / "net").file)
    card = {"class_names": list(SMALL["cifar10"].class_names), "data": {"resolution": 32}}
    (tmp_path / "net.json").write_text(json.dumps(card))
    one, *others = (
        json.loads(invoke("predict", path, *images, *SIZE, "--top", 10, "--json"))["predictions"]
        for path in (model, *files)
    )
    told = json.loads(invoke("predict", files[0], *images, "--top", 10, "--json"))
    assert (told["resolution"], told["predictions"]) == (32, others[0]), "the card says for which size it is"
    for other in others:
        for mine, theirs in zip(one, other, strict=True):
            probable = {guess["number"]: guess["probability"] for guess in mine["top"]}
            for guess in theirs["top"]:
                assert guess["probability"] == pytest.approx(probable[guess["number"]], abs=0.02)
                assert not guess["name"].startswith("class"), "the card beside it names the classes"


def test_where_names_come_from(tmp_path: Path) -> None:
    model, names = tmp_path / "net.pth", tmp_path / "names.txt"
    assert class_names(model, 2, None, None) == ("class 0", "class 1")
    (tmp_path / "net.json").write_text(json.dumps({"class_names": ["yes", "no"], "data": {"name": "cifar10"}}))
    assert class_names(model, 2, None, None) == ("yes", "no")
    assert class_names(tmp_path / "net-int8.onnx", 2, None, None) == ("yes", "no")
    assert class_names(model, 10, None, "cifar10")[3] == "cat"
    names.write_text("\ufeffleft\n right \n\n", encoding="utf-8")
    assert class_names(model, 2, str(names), "cifar10") == ("left", "right")
    assert class_names(model, 3, "a, b,c", None) == ("a", "b", "c")


Complaint = Callable[..., str]


@pytest.fixture
def complaint(command: Command) -> Complaint:
    """Run a command that must fail; returns its one line."""

    def run(*arguments: object) -> str:
        done = command(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        return line

    return run


def test_bad_input_is_said_in_a_line_and_nothing_is_printed(
    complaint: Complaint, model: Path, images: list[Path], tmp_path: Path
) -> None:
    text = tmp_path / "text.png"
    text.write_text("my notes")
    line = complaint("predict", model, images[0], text, tmp_path / "none.png", *SIZE)
    assert f"{text}: is not an image" in line and "none.png: cannot be read (No such file" in line
    assert "no such file" in complaint("predict", tmp_path / "none.pth", images[0])
    assert "is an image" in complaint("predict", images[0], images[0])
    assert "names 2 classes" in complaint("predict", model, images[0], "--classes", "yes,no")
    assert "none.txt: cannot be read" in complaint("predict", model, images[0], "--classes", tmp_path / "none.txt")
    assert "IMAGE" in complaint("predict", model)


def small_onnx(path: Path, shape: list[object], kind: str = "FLOAT") -> Path:
    """An ONNX model of another program: ten classes, all as probable, whatever its inputs."""
    given = onnx.helper.make_tensor_value_info("x", getattr(onnx.TensorProto, kind), shape)
    made = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 10])
    value = onnx.numpy_helper.from_array(np.zeros((1, 10), np.float32), "zeros")
    node = onnx.helper.make_node("Identity", ["zeros"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [given], [made], [value])
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)]), path)
    return path


def test_an_onnx_file_that_is_no_image_classifier_is_refused(
    complaint: Complaint, images: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "a.onnx"
    for shape, kind in (
        (["n", 16], "FLOAT"), (["n", 1, 32, 32], "FLOAT"), (["n", 3, 32, 40], "FLOAT"), (["n", 3, 32, 32], "INT64"),
        ([8, 3, 32, 32], "FLOAT"),
    ):  # fmt: skip
        for arguments in (("predict", images[0]), ("benchmark",), ("compare", "--no-grade")):
            name, *rest = arguments
            line = complaint(name, small_onnx(path, shape, kind), *rest)
            assert f"{path}: not an image classifier" in line
    assert "exported for images of 32 px; give --resolution 32" in complaint(
        "predict", small_onnx(path, [1, 3, 32, 32]), images[0]
    )
    path.write_bytes(path.read_bytes()[:-5])
    assert "not an ONNX model that onnxruntime can run" in complaint("predict", path, images[0])


def test_onnx_of_other_programs_runs(invoke: Invoke, images: list[Path], tmp_path: Path) -> None:
    path = small_onnx(tmp_path / "a.onnx", [1, 3, "h", "w"])
    found = json.loads(invoke("predict", path, *images, "--json"))
    assert {guess["probability"] for one in found["predictions"] for guess in one["top"]} == {0.1}
    (row,) = json.loads(invoke("compare", path, "--no-grade", "--json"))["models"]
    assert row["mflops"] is row["params"] is row["mflops_by_stage"] is None
    assert "a.onnx" in invoke("compare", path, "--no-grade")

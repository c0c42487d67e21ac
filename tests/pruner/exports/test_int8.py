"""int8: what is rounded, what is not, and which block suffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.channels.importance import score_channels
from pruner.channels.plan import apply_plan, make_plan
from pruner.data.batches import prepared
from pruner.data.datasets import Dataset
from pruner.errors import InputError
from pruner.exports.int8 import LAYERS, Calibrated, calibrate, errors_by_block, export_int8, find_layers
from pruner.exports.onnx_file import open_onnx
from pruner.measurement.measure import accuracy, evaluate, right_answers
from pruner.network.mobilenet import widths
from pruner.network.structure import MODULES, STAGES
from pruner.recipe import Prune
from pruner.training.average import recalibrate_batchnorm
from pruner.weights.masks import weights

pytestmark = pytest.mark.slow
onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
RESOLUTION = 32


@pytest.fixture(scope="module")
def model(dense: MobileNetV2, data: Dataset) -> nn.Module:
    """A narrow network with BatchNorm statistics of real images, and so with outputs that differ between them.

    All hidden channels of its block 7 but one are tiny, and read as much larger. In float that does no harm.
    """
    plan = make_plan(dense, Prune(pruning_ratio=dict.fromkeys(STAGES, 0.7)), score_channels(dense, "l2"))
    narrow = apply_plan(dense, plan)
    recalibrate_batchnorm(narrow, data.train, count=256, resolution=RESOLUTION)
    norm, reader = (narrow.get_submodule(f"features.7.conv.{name}") for name in ("1.1", "2"))
    with torch.no_grad():
        norm.weight[1:] /= 2000  # type: ignore[operator, index]
        norm.bias[1:] /= 2000  # type: ignore[operator, index]
        reader.weight[:, 1:] *= 2000  # type: ignore[operator, index]
    return narrow.eval()


@pytest.fixture(scope="module")
def calibrated(model: nn.Module, data: Dataset) -> Calibrated:
    return calibrate(model, data.train.first(64), resolution=RESOLUTION)


def graph_of(content: bytes) -> Any:
    return onnx.load_from_string(content).graph


def error(calibrated: Calibrated, data: Dataset, keep_float: tuple[str, ...], folder: Path) -> float:
    """The mean difference of the outputs on real images."""
    path = export_int8(calibrated, folder / "m", keep_float).file
    images = prepared(data.holdout.images[:64], RESOLUTION)
    with torch.inference_mode():
        return (open_onnx(path)(images) - calibrated._network(images)).abs().mean().item()


def test_layers_have_their_modules_names_and_batchnorm_is_folded(model: nn.Module, calibrated: Calibrated) -> None:
    nodes = graph_of(calibrated.float_onnx).node
    assert [node.name for node in nodes if node.op_type in ("Conv", "Gemm")] == list(LAYERS)
    assert [f"{layer}.weight" for layer in LAYERS] == list(weights(model))
    assert not [node for node in nodes if node.op_type == "BatchNormalization"]
    assert not [node for node in nodes if node.metadata_props], "it says where files of this machine lie"


def test_every_channel_is_rounded_by_a_step_of_its_own(calibrated: Calibrated, model: nn.Module) -> None:
    graph = graph_of(calibrated.quantized())
    values = {value.name: value for value in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weight = makers[node.input[1]]
            assert weight.op_type == makers[node.input[0]].op_type == "DequantizeLinear"
            steps, rounded = values[weight.input[1]], values[weight.input[0]]
            assert rounded.data_type == onnx.TensorProto.INT8
            assert list(steps.dims) == [len(model.get_parameter(f"{node.name}.weight"))]


def test_the_file_is_small_runs_and_knows_its_network(
    calibrated: Calibrated, model: nn.Module, data: Dataset, tmp_path: Path
) -> None:
    done = export_int8(calibrated, tmp_path / "m.1", ["features.7"])
    assert done.file == tmp_path / "m.1-int8.onnx"
    assert done.size_bytes == done.file.stat().st_size < 0.6 * len(calibrated.float_onnx)
    opened = open_onnx(done.file, resolution=RESOLUTION)
    assert (opened.widths, opened.classes, opened.resolution) == (widths(model), 10, RESOLUTION)
    right = [right_answers(opened, data.holdout, resolution=RESOLUTION, batch_size=size) for size in (7, 50)]
    assert torch.equal(*right)
    assert abs(accuracy(right[0]) - accuracy(evaluate(model, data.holdout, resolution=RESOLUTION))) < 0.05
    assert done.file.read_bytes() == calibrated.quantized(find_layers(["features.7"])), (
        "the same network and images give the same file"
    )


def test_a_layer_left_in_float_has_its_weights_when_onnxruntime_has_optimised_it(
    calibrated: Calibrated, model: nn.Module, tmp_path: Path
) -> None:
    kept = ("features.7.conv.1.0", "features.9.conv.2", "classifier.1")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(calibrated.quantized(kept), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(tmp_path / "optimised.onnx").graph
    values = {value.name: value for value in graph.initializer}
    by_name = {node.name: node for node in graph.node}
    for layer in kept:
        weight = values.get(by_name[layer].input[1])
        assert weight is not None, f"{layer} is rounded"
        found = torch.from_numpy(onnx.numpy_helper.to_array(weight).copy())
        assert found.numel() == model.get_parameter(f"{layer}.weight").numel()
    assert values.get(by_name["features.7.conv.0.0"].input[1]) is None


def test_the_block_that_int8_spoils_is_found_and_float_heals_it(
    calibrated: Calibrated, data: Dataset, tmp_path: Path
) -> None:
    three, told = ["features.6", "features.7", "features.8"], []
    others = tuple(block for block in MODULES if block not in three)
    errors = errors_by_block(calibrated, data.holdout.first(64), others, on_block=lambda: told.append(1))
    assert list(errors) == three and len(told) == 3
    assert errors["features.7"] < 0.5 * min(errors["features.6"], errors["features.8"])
    plain, healed = (error(calibrated, data, (*others, *more), tmp_path) for more in ((), ("features.7",)))
    assert healed < 0.5 * plain


def test_layers_blocks_and_stages_can_be_named() -> None:
    assert len(LAYERS) == 53
    assert find_layers(["features.5"]) == ("features.5.conv.0.0", "features.5.conv.1.0", "features.5.conv.2")
    assert find_layers(["classifier", "stem"]) == ("features.0.0", "classifier.1")
    assert find_layers(["features.1"]) == ("features.1.conv.0.0", "features.1.conv.1"), "not features.10"
    assert set(find_layers(list(MODULES))) == set(find_layers([*STAGES, "stem", "classifier"])) == set(LAYERS)
    for name in ("features.19", "", "stage8", "features.5.conv.1.1"):
        with pytest.raises(InputError, match="is no layer") as caught:
            find_layers([name])
        assert "\n" not in str(caught.value)

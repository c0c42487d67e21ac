"""int8: a network as an ONNX model whose weights and activations have 8 bits, for onnxruntime.

Static quantisation: QuantizeLinear and DequantizeLinear nodes around every layer, weights in steps of their own for
each channel, activations between the least and the greatest value that each has on some training images (MinMax).
BatchNorm is folded into the convolutions beforehand; a ReLU6 becomes the upper end of its layer's range.

Why MinMax: ReLU6 leaves hardly an activation with outliers to cut off. On the record of 15 MFLOPs at 224 px, with 128
training images, by the KL divergence from the float network on 300 holdout images: MinMax 0.0078 in 1.7 s, the 99.99th
percentile 0.0082 in 11 s; both keep the accuracy. MinMax of 256 images: 0.0077. (onnxruntime 1.32, 2 cores of an EPYC.)
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pruner.data.batches import map_batches
from pruner.data.datasets import Split
from pruner.errors import InputError
from pruner.exports.formats import INT8, Exported, at_rest, require, worst_difference
from pruner.exports.onnx_file import onnx_bytes, open_onnx, quiet, session
from pruner.network.structure import BLOCKS, CLASSIFIER, HEAD, MODULES, STEM, module_of
from pruner.system.cores import on_cores
from pruner.system.extras import need
from pruner.system.files import write_whole

CALIBRATION_IMAGES = 256
"""How many training images `calibrate` should be given."""
SUFFIX = "-int8.onnx"
METHOD = "MinMax"
"""How the ranges of activations are found, in onnxruntime's word."""
_BATCH = 16
_OPERATIONS = ["Conv", "Gemm", "Add", "Clip", "ReduceMean", "GlobalAveragePool", "Reshape", "Flatten"]
"""All that a MobileNetV2 consists of, so that nothing in it goes back to float in between."""
LAYERS = (
    f"{STEM}.0",
    *(
        layer
        for block in BLOCKS
        for layer in (block.expansion and f"{block.expansion}.0", f"{block.depthwise}.0", block.projection)
        if layer
    ),
    f"{HEAD}.0",
    f"{CLASSIFIER}.1",
)
"""The modules of the 52 convolutions and the classifier, first to last."""


def find_layers(names: Sequence[str]) -> tuple[str, ...]:
    """The layers of those names: a layer's own, a block's (`features.5`), or a stage's (`stage3`, `head`).

    Raises InputError if there is none of a name.
    """
    for name in names:
        if not any(_is_in(layer, name) for layer in LAYERS):
            raise InputError(
                f"keep_float: {name!r} is no layer (as features.5.conv.1.0), block (features.5) or stage "
                f"({', '.join(dict.fromkeys(MODULES.values()))})"
            )
    return tuple(layer for layer in LAYERS if any(_is_in(layer, name) for name in names))


def _is_in(layer: str, name: str) -> bool:
    return f"{layer}.".startswith(f"{name}.") or MODULES[module_of(layer)] == name


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A network with the ranges of its activations, from which int8 networks are made."""

    resolution: int
    images: int
    """How many images it was calibrated on."""
    float_onnx: bytes
    """The same network as ONNX in float, as exported."""
    _network: nn.Module
    _model: Any
    """An ONNX model in float."""
    _ranges: Any

    def quantized(self, keep_float: Sequence[str] = ()) -> bytes:
        """The int8 network as ONNX; the layers `keep_float` (of LAYERS) stay in float."""
        quantizer = need("onnxruntime.quantization", INT8, "onnx")
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        # Unsigned activations suit ReLU6 and x86: with signed ones onnxruntime takes twice as long there.
        made = QDQQuantizer(
            copy.deepcopy(self._model), True, False, quantizer.QuantType.QInt8, quantizer.QuantType.QUInt8,
            self._ranges, [], list(keep_float), _OPERATIONS, {},
        )  # fmt: skip
        made.quantize_model()
        graph = made.model.model.graph
        for node in [node for node in graph.node if node.name in keep_float]:
            _shield(node, graph)
        return made.model.model.SerializeToString()  # the metadata is still the float model's


def _shield(node: Any, graph: Any) -> None:
    """Keep onnxruntime from quantising a layer that is to stay in float.

    When it loads a file, its WeightBiasQuantization rounds the float weights of any layer that reads from a
    DequantizeLinear: with one step for all channels, which harms a depthwise convolution more than int8 does. It passes
    over a DequantizeLinear with a scale for each channel. This layer gets one of its own, whose scales are all equal.
    """
    from onnx import helper, numpy_helper

    values = {one.name: one for one in graph.initializer}
    source = next((one for one in graph.node if node.input[0] in one.output), None)
    if source is None or source.op_type != "DequantizeLinear":
        return
    weight, group = values[node.input[1]], next((a.i for a in node.attribute if a.name == "group"), 1)
    channels = weight.dims[1] * group  # of a convolution (out, in / group, ...) and the classifier (out, in)
    names = []
    for given in source.input[1:]:
        spread = numpy_helper.to_array(values[given]).reshape(1).repeat(channels)
        names.append(f"{node.name}.{given}")
        graph.initializer.append(numpy_helper.from_array(spread, names[-1]))
    own = helper.make_node(
        "DequantizeLinear", [source.input[0], *names], [f"{node.name}.input"], f"{node.name}.input", axis=1
    )
    node.input[0] = own.output[0]
    graph.node.insert(list(graph.node).index(source) + 1, own)
    if not any(source.output[0] in one.input for one in graph.node):
        graph.node.remove(source)


def calibrate(
    model: nn.Module, images: Split, *, resolution: int, on_images: Callable[[int], None] | None = None
) -> Calibrated:
    """Find the ranges of a network's activations on some images, which should be training images.

    Raises InputError if a package is not installed.
    """
    require(INT8)
    import onnx
    from onnxruntime.quantization import CalibrationMethod, quant_pre_process
    from onnxruntime.quantization.calibrate import create_calibrator

    still = at_rest(model)
    content = onnx_bytes(still, resolution)
    with tempfile.TemporaryDirectory() as name, quiet():
        folder = Path(name)
        # Infers the shapes, and folds what onnxruntime would fold when it loads the network.
        (folder / "exported.onnx").write_bytes(content)
        quant_pre_process(folder / "exported.onnx", folder / "float.onnx", skip_symbolic_shape=True)
        found = create_calibrator(
            folder / "float.onnx", _OPERATIONS, str(folder / "augmented.onnx"), CalibrationMethod.MinMax
        )

        prepared = map_batches(_as_array, images, batch_size=_BATCH, resolution=resolution, on_images=on_images)
        for batch in prepared:  # one at a time: the calibrator keeps the outputs of all that it is given at once
            found.collect_data(_Batch(batch))
        ranges = found.compute_data()
        float_model = onnx.load(folder / "float.onnx")
    return Calibrated(
        resolution=resolution, images=len(images), float_onnx=content, _network=still, _model=float_model,
        _ranges=ranges,
    )  # fmt: skip


def export_int8(calibrated: Calibrated, stem: Path, keep_float: Sequence[str] = ()) -> Exported:
    """Write the int8 network to `stem` plus `-int8.onnx`, whole or not at all, and open it again.

    Its outputs differ from the network's, by as much as the result says. Raises InputError for a layer of that name.
    """
    path = stem.with_name(f"{stem.name}{SUFFIX}")
    with quiet():
        write_whole(path, calibrated.quantized(find_layers(keep_float)))
    load = open_onnx(path, resolution=calibrated.resolution)
    worst = worst_difference(load, calibrated._network, calibrated.resolution)
    return Exported(format=INT8, file=path, size_bytes=path.stat().st_size, worst_difference=worst)


def errors_by_block(
    calibrated: Calibrated,
    images: Split,
    keep_float: Sequence[str] = (),
    on_block: Callable[[], None] | None = None,
) -> dict[str, float]:
    """For each block, the error of the int8 network that leaves this one, beside `keep_float`, in float.

    The block with the smallest error is the one that int8 harms most. Blocks, not layers: the values between two layers
    are rounded unless both stay in float. The error is the mean KL divergence of the class probabilities from the float
    network's. A hundred images suffice for it, on which an accuracy would move in steps of a whole percent.
    """
    kept = find_layers(keep_float)
    blocks = [name for name in MODULES if not set(find_layers([name])) <= set(kept)]
    prepared = map_batches(_keep, images, batch_size=_BATCH, resolution=calibrated.resolution)
    given = torch.cat(list(prepared)).cpu().contiguous()
    with torch.inference_mode():
        wanted = torch.cat([calibrated._network(part) for part in torch.split(given, _BATCH)]).log_softmax(1)

    def error(block: str) -> float:
        opened = session(calibrated.quantized([*kept, *find_layers([block])]), threads=1)
        found = [opened.run(None, {"images": part.numpy()})[0] for part in torch.split(given, _BATCH)]
        logits = torch.from_numpy(np.concatenate(found))
        return F.kl_div(logits.log_softmax(1), wanted, reduction="batchmean", log_target=True).item()

    errors = {}
    with quiet():
        for block, found in zip(blocks, on_cores(error, blocks), strict=True):
            errors[block] = found
            if on_block:
                on_block()
    return errors


class _Batch:
    """One batch, in the shape that onnxruntime's calibrators ask for."""

    def __init__(self, images: Any) -> None:
        self._left: list[dict[str, Any]] = [{"images": images}]

    def get_next(self) -> dict[str, Any] | None:
        return self._left.pop() if self._left else None


def _as_array(images: Tensor, _labels: Tensor, _number: int) -> Any:
    return images.cpu().contiguous().numpy()


def _keep(images: Tensor, _labels: Tensor, _number: int) -> Tensor:
    return images

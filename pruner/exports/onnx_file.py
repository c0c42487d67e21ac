"""ONNX: write a network as an ONNX model, and read the ONNX file of any image classifier with onnxruntime."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruner.errors import InputError
from pruner.network.mobilenet import widths
from pruner.network.structure import GROUP
from pruner.system.extras import need

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
"""What writing ONNX needs, and checking it; onnxruntime alone reads it."""
_WIDTHS = "prune_search.widths"
"""The file's metadata entry that holds the widths, from which its operations are counted."""
_ONLY_ERRORS = 3


def onnx_bytes(model: nn.Module, resolution: int) -> bytes:
    """The network as ONNX, from `images` of shape (N, 3, resolution, resolution), for any N, to `logits`.

    BatchNorm is folded into the convolutions. Each node of a convolution, and the classifier's, has its module's name.

    Raises InputError if ONNX is not installed.
    """
    need("onnx", "ONNX", "onnx")
    need("onnxscript", "ONNX", "onnx")
    with quiet():
        program = torch.onnx.export(
            model,
            (torch.rand(2, 3, resolution, resolution),),
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    assert program is not None
    made = program.model_proto
    for node in made.graph.node:
        # The exporter notes where each node's Python code lies on this machine: a third of a pruned network's file.
        del node.metadata_props[:]
        if node.op_type in ("Conv", "Gemm"):
            node.name = node.input[1].removesuffix(".weight")
    entry = made.metadata_props.add()
    entry.key, entry.value = _WIDTHS, json.dumps(widths(model))
    return made.SerializeToString()


def session(source: bytes | Path, threads: int) -> Any:
    """An onnxruntime session on the CPU. Raises InputError if onnxruntime is not installed or refuses the model."""
    runtime = need("onnxruntime", "running ONNX", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _ONLY_ERRORS
    # Threads that wait for the next run would take the cores from whatever is measured next to it.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    given = str(source) if isinstance(source, Path) else source
    try:
        return runtime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has an exception of its own for each status
        where = f"{source}: " if isinstance(source, Path) else ""
        reason = str(error).splitlines()[0][:160]
        raise InputError(f"{where}not an ONNX model that onnxruntime can run ({reason})") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxClassifier:
    """An image classifier in an ONNX file, ready to run; it may run in several threads at once."""

    file: Path
    classes: int
    resolution: int | None
    """Pixels a side of the images that it takes; None: any."""
    widths: dict[str, int] | None
    """Those of the MobileNetV2 that it was made from; None if the file does not say."""
    one_by_one: bool
    """Does it take one image at a time?"""
    _session: Any

    def __call__(self, images: Tensor) -> Tensor:
        """The logits (N, classes) of float images (N, 3, resolution, resolution)."""
        parts = torch.split(images.cpu().contiguous(), 1 if self.one_by_one else max(1, len(images)))
        name = self._session.get_inputs()[0].name
        return torch.cat([torch.from_numpy(self._session.run(None, {name: part.numpy()})[0]) for part in parts])


def open_onnx(path: Path, *, resolution: int | None = None, threads: int = 1) -> OnnxClassifier:
    """Open an ONNX file that classifies images.

    Args:
        path: The file.
        resolution: Pixels a side of the images that it will be given; None: not known yet.
        threads: Threads of each run.

    Raises:
        InputError: onnxruntime is not installed or refuses the file, it is no image classifier, or it takes images of
            another resolution.
    """
    opened = session(path, threads)
    inputs, outputs = opened.get_inputs(), opened.get_outputs()
    shape, classes = inputs[0].shape if inputs else [], outputs[0].shape[-1:] if outputs else []
    fits = (
        len(inputs) == len(outputs) == 1
        and (inputs[0].type, outputs[0].type) == ("tensor(float)", "tensor(float)")
        and (len(shape), len(outputs[0].shape)) == (4, 2)
        and shape[1] == 3
        and isinstance(classes[0], int)
        and (shape[0] == 1 or not isinstance(shape[0], int))
        and (shape[2] == shape[3] or not (isinstance(shape[2], int) and isinstance(shape[3], int)))
    )
    if not fits:
        has = ", ".join(f"{one.type.removeprefix('tensor')[1:-1]} {_shape(one.shape)}" for one in (*inputs, *outputs))
        raise InputError(
            f"{path}: not an image classifier, which takes one float tensor (N, 3, pixels, pixels) and gives one "
            f"(N, classes); its inputs and outputs are {has}"
        )
    side = next((size for size in shape[2:] if isinstance(size, int)), None)
    if None not in (side, resolution) and side != resolution:
        raise InputError(f"{path}: was exported for images of {side} px; give --resolution {side}")
    return OnnxClassifier(
        file=path, classes=classes[0], resolution=side, widths=_widths(opened), one_by_one=shape[0] == 1,
        _session=opened,
    )  # fmt: skip


def _shape(sizes: list[int | str | None]) -> str:
    return f"({', '.join(str(size) for size in sizes)})"


def _widths(opened: Any) -> dict[str, int] | None:
    try:
        found = json.loads(opened.get_modelmeta().custom_metadata_map[_WIDTHS])
    except (KeyError, ValueError):
        return None
    fits = isinstance(found, dict) and found.keys() == GROUP.keys() and all(type(n) is int for n in found.values())
    return found if fits else None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' progress output and deprecation warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

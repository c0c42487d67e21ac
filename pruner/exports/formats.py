"""A network in the forms that other programs load; each is loaded again and its outputs compared.

| format | written by | loaded by |
|---|---|---|
| pth | torch.save of the whole module | torch and torchvision alone; what the course asks for |
| safetensors | weights without pickle, and the plan in JSON | `load_network`, or any program that reads safetensors |
| onnx | torch.onnx | onnxruntime, Netron, most others |
| pt2 | torch.export | torch, without the classes |
| pte | ExecuTorch with XNNPACK | ExecuTorch on phones and boards |
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruner.exports.module import export_module
from pruner.network.loading import load_network
from pruner.network.mobilenet import widths
from pruner.system.extras import has, need
from pruner.system.files import write_json, write_whole

CLOSE = 1e-4
"""Largest difference of an output that a format may have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A file that was written and checked."""

    format: str
    file: Path
    size_bytes: int
    worst_difference: float
    """Of an output, over a few images, between the file loaded again and the network."""


Load = Callable[[Tensor], Tensor]


def export(model: nn.Module, stem: Path, format: str, *, plan: Mapping[str, Any], resolution: int = 224) -> Exported:
    """Write the network as `stem` plus the format's ending, whole or not at all.

    `plan`: goes beside the weights in JSON (for safetensors; see `ChannelPlan.as_json`). `resolution`: pixels a side
    that the network is traced at (for onnx, pt2 and pte); the number of images is free, but for pte, which takes one.

    Raises InputError if the format's package is not installed, AssertionError if the file, loaded again, gives outputs
    that differ by more than CLOSE; it is removed then.
    """
    still = copy.deepcopy(model).cpu().float().eval().to(memory_format=torch.contiguous_format)
    path = stem.with_name(f"{stem.name}.{format}")
    load = _WRITERS[format](still, path, plan, resolution)
    count = 1 if format == "pte" else 3
    images = torch.rand(count, 3, resolution, resolution, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        worst = (load(images) - still(images)).abs().max().item()
    if not worst <= CLOSE:  # not a number is not close
        path.unlink()
        raise AssertionError(f"{path}: loaded again, its outputs differ by {worst:g}")
    return Exported(format=format, file=path, size_bytes=path.stat().st_size, worst_difference=worst)


def available() -> list[str]:
    """The formats whose packages are installed here."""
    needed = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "pte": ("executorch",)}
    return [name for name in FORMATS if all(has(package) for package in needed.get(name, ()))]


def _pth(model: nn.Module, path: Path, _plan: Mapping[str, Any], _resolution: int) -> Load:
    export_module(model, path)
    return load_network(path)


def _safetensors(model: nn.Module, path: Path, plan: Mapping[str, Any], _resolution: int) -> Load:
    from safetensors.torch import save

    write_whole(path, save(model.state_dict(), metadata={"format": "pt", "widths": str(widths(model))}))
    write_json(path.with_suffix(".plan.json"), plan)
    return load_network(path)


def _onnx(model: nn.Module, path: Path, _plan: Mapping[str, Any], resolution: int) -> Load:
    runtime = need("onnxruntime", "ONNX", "onnx")
    content = onnx_bytes(model, resolution)
    write_whole(path, content)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _pt2(model: nn.Module, path: Path, _plan: Mapping[str, Any], resolution: int) -> Load:
    buffer = io.BytesIO()
    with _quiet():
        images, batch = torch.rand(2, 3, resolution, resolution), torch.export.Dim("batch")
        torch.export.save(torch.export.export(model, (images,), dynamic_shapes=({0: batch},)), buffer)
        write_whole(path, buffer.getvalue())
        return torch.export.load(path).module()


def _pte(model: nn.Module, path: Path, _plan: Mapping[str, Any], resolution: int) -> Load:
    need("executorch", "ExecuTorch", "executorch")
    with _quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
        from executorch.runtime import Runtime

        program = torch.export.export(model, (torch.rand(1, 3, resolution, resolution),))
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
        write_whole(path, lowered.buffer)
        method = Runtime.get().load_program(str(path)).load_method("forward")
    return lambda images: method.execute([images])[0]


def onnx_bytes(model: nn.Module, resolution: int) -> bytes:
    """The network as ONNX: `images` (any number, 3, resolution, resolution) to `logits`.

    Raises InputError if ONNX is not installed.
    """
    need("onnx", "ONNX", "onnx")
    need("onnxscript", "ONNX", "onnx")
    with _quiet():
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
        return program.model_proto.SerializeToString()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters talk of what they do and what their parts will deprecate."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


_WRITERS: dict[str, Callable[[nn.Module, Path, Mapping[str, Any], int], Load]] = {
    "pth": _pth,
    "safetensors": _safetensors,
    "onnx": _onnx,
    "pt2": _pt2,
    "pte": _pte,
}
FORMATS = tuple(_WRITERS)

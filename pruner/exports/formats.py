"""Write a network in formats that other programs load; each file is loaded back and its outputs are compared.

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
"""The largest difference in any output that a format may show."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """An exported file, written and checked."""

    format: str
    file: Path
    size_bytes: int
    worst_difference: float
    """The largest difference in any output between the reloaded file and the network, over one or three images."""


Load = Callable[[Tensor], Tensor]


def export(model: nn.Module, stem: Path, format: str, *, plan: Mapping[str, Any], resolution: int = 224) -> Exported:
    """Write the network to `stem` plus the format's suffix, whole or not at all.

    `plan`: written as JSON beside the weights (safetensors only; see `ChannelPlan.as_json`). `resolution`: pixels a
    side at which the network is traced (onnx, pt2 and pte). The batch size is dynamic, except in pte, where it is 1.

    Raises InputError if the format's package is not installed, and AssertionError if the reloaded file's outputs differ
    by more than CLOSE; the file is then removed.
    """
    still = copy.deepcopy(model).cpu().float().eval().to(memory_format=torch.contiguous_format)
    path = stem.with_name(f"{stem.name}.{format}")
    load = _WRITERS[format](still, path, plan, resolution)
    count = 1 if format == "pte" else 3
    images = torch.rand(count, 3, resolution, resolution, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        worst = (load(images) - still(images)).abs().max().item()
    if not worst <= CLOSE:  # `not <=` also catches NaN
        path.unlink()
        raise AssertionError(f"{path}: loaded again, its outputs differ by {worst:g}")
    return Exported(format=format, file=path, size_bytes=path.stat().st_size, worst_difference=worst)


def available() -> list[str]:
    """The formats whose packages are installed."""
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
    """The network as ONNX, from `images` of shape (N, 3, resolution, resolution), for any N, to `logits`.

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
    """Silence the exporters' progress output and deprecation warnings."""
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

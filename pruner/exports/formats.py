"""Write a network in formats that other programs load; each file is loaded back and its outputs are compared.

| format | written by | loaded by |
|---|---|---|
| pth | torch.save of the whole module | torch and torchvision alone; what the course asks for |
| safetensors | weights without pickle, and the plan in JSON | `load_network`, or any program that reads safetensors |
| onnx | torch.onnx | onnxruntime, Netron, most others |
| onnx-int8 | `pruner.exports.int8` | onnxruntime; the one format that changes the network |
| pt2 | torch.export | torch, without the classes |
| pte | ExecuTorch with XNNPACK | ExecuTorch on phones and boards |
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruner.exports.module import export_module
from pruner.exports.onnx_file import PACKAGES, onnx_bytes, open_onnx, quiet
from pruner.network.loading import load_network
from pruner.network.mobilenet import widths
from pruner.system.extras import has, need
from pruner.system.files import write_json, write_whole

CLOSE = 1e-4
"""The largest difference in any output that a format may show."""
INT8 = "onnx-int8"
"""The format with 8-bit weights and activations; it needs images, so `pruner.exports.int8` writes it."""


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
    still, path = at_rest(model), stem.with_name(f"{stem.name}.{format}")
    load = _WRITERS[format](still, path, plan, resolution)
    worst = worst_difference(load, still, resolution, images=1 if format == "pte" else 3)
    if not worst <= CLOSE:  # `not <=` also catches NaN
        path.unlink()
        raise AssertionError(f"{path}: loaded again, its outputs differ by {worst:g}")
    return Exported(format=format, file=path, size_bytes=path.stat().st_size, worst_difference=worst)


def at_rest(model: nn.Module) -> nn.Module:
    """A copy of the network as it is exported: 32-bit, on the CPU, in eval mode."""
    return copy.deepcopy(model).cpu().float().eval().to(memory_format=torch.contiguous_format)


def worst_difference(load: Load, model: nn.Module, resolution: int, images: int = 3) -> float:
    """The largest difference in any output between a reloaded file and the network, over so many random images."""
    given = torch.rand(images, 3, resolution, resolution, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return (load(given) - model(given)).abs().max().item()


_NEEDED = {"onnx": PACKAGES, INT8: PACKAGES, "pte": ("executorch",)}
_EXTRAS = {"onnx": "onnx", INT8: "onnx", "pte": "executorch"}


def available() -> list[str]:
    """The formats whose packages are installed, without int8: it is another network, and takes longer."""
    return [name for name in FORMATS if all(has(package) for package in _NEEDED.get(name, ()))]


def require(format: str) -> None:
    """Raise InputError, saying what to install, if a package that writes the format is missing."""
    for package in _NEEDED.get(format, ()):
        need(package, f"the format {format}", _EXTRAS[format])


def _pth(model: nn.Module, path: Path, _plan: Mapping[str, Any], _resolution: int) -> Load:
    export_module(model, path)
    return load_network(path)


def _safetensors(model: nn.Module, path: Path, plan: Mapping[str, Any], _resolution: int) -> Load:
    from safetensors.torch import save

    write_whole(path, save(model.state_dict(), metadata={"format": "pt", "widths": str(widths(model))}))
    write_json(path.with_suffix(".plan.json"), plan)
    return load_network(path)


def _onnx(model: nn.Module, path: Path, _plan: Mapping[str, Any], resolution: int) -> Load:
    write_whole(path, onnx_bytes(model, resolution))
    return open_onnx(path)


def _pt2(model: nn.Module, path: Path, _plan: Mapping[str, Any], resolution: int) -> Load:
    buffer = io.BytesIO()
    with quiet():
        images, batch = torch.rand(2, 3, resolution, resolution), torch.export.Dim("batch")
        torch.export.save(torch.export.export(model, (images,), dynamic_shapes=({0: batch},)), buffer)
        write_whole(path, buffer.getvalue())
        return torch.export.load(path).module()


def _pte(model: nn.Module, path: Path, _plan: Mapping[str, Any], resolution: int) -> Load:
    need("executorch", "ExecuTorch", "executorch")
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
        from executorch.runtime import Runtime

        program = torch.export.export(model, (torch.rand(1, 3, resolution, resolution),))
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
        write_whole(path, lowered.buffer)
        method = Runtime.get().load_program(str(path)).load_method("forward")
    return lambda images: method.execute([images])[0]


_WRITERS: dict[str, Callable[[nn.Module, Path, Mapping[str, Any], int], Load]] = {
    "pth": _pth,
    "safetensors": _safetensors,
    "onnx": _onnx,
    "pt2": _pt2,
    "pte": _pte,
}
FORMATS = tuple(_WRITERS)

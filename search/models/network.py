"""A network's file in any format that can be run, opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.exports.onnx_file import OnnxClassifier, open_onnx
from pruner.network.file_kinds import is_onnx
from pruner.network.loading import load_network
from pruner.network.mobilenet import classes, widths


@dataclass(frozen=True, slots=True)
class Network:
    """A file, opened."""

    path: Path
    model: MobileNetV2 | None
    """None: it is in ONNX."""
    onnx: OnnxClassifier | None
    """None: it is in .pth or .safetensors."""
    widths: dict[str, int] | None
    """None: it is in ONNX that does not say which MobileNetV2 it was made from."""
    classes: int

    @property
    def classify(self) -> Callable[[Tensor], Tensor]:
        """Float images (N, 3, resolution, resolution) -> logits (N, classes)."""
        found = self.onnx or self.model
        assert found is not None
        return found


def open_network(path: Path, resolution: int) -> Network:
    """Open a .pth, .safetensors or .onnx file. Raises InputError if it holds no network for that resolution."""
    if is_onnx(path):
        found = open_onnx(path, resolution=resolution)
        return Network(path, None, found, found.widths, found.classes)
    model = load_network(path)
    return Network(path, model, None, widths(model), classes(model))

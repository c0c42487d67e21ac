"""Loading a network from a file without running any of the file's code."""

from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual, MobileNetV2
from torchvision.ops.misc import Conv2dNormActivation, ConvNormActivation

from pruner.errors import InputError
from pruner.mobilenet import classes, from_state_dict, origin_difference

_STOCK_CLASSES: list[Any] = [
    MobileNetV2,
    InvertedResidual,
    Conv2dNormActivation,
    ConvNormActivation,
    nn.Sequential,
    nn.Conv2d,
    nn.BatchNorm2d,
    nn.ReLU6,
    nn.Dropout,
    nn.Linear,
    set,
]


def load_dense(path: Path, class_count: int) -> MobileNetV2:
    """A network to prune: any file `load_network` takes that is still a MobileNetV2, for this many classes."""
    model = load_network(path)
    if difference := origin_difference(model):
        raise InputError(f"{path}: not a MobileNetV2: {difference}")
    if classes(model) != class_count:
        raise InputError(
            f"{path}: tells {classes(model)} classes apart, the data has {class_count}; "
            f"start from it instead: [base] init = {str(path)!r}"
        )
    return model


def load_network(path: Path) -> MobileNetV2:
    """A MobileNetV2 from a whole pickled module, a state_dict, or safetensors; on the CPU, in eval mode.

    None of the file's code is run: a file that holds anything else than tensors and stock layers is refused by naming
    it.

    Raises InputError.
    """
    loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _unpickle(path)
    if isinstance(loaded, dict):
        for key in ("state_dict", "model"):
            if isinstance(loaded.get(key), dict):
                loaded = loaded[key]
        loaded = from_state_dict(loaded, str(path))
    if not isinstance(loaded, MobileNetV2):
        raise InputError(f"{path}: holds a {type(loaded).__name__}, not a MobileNetV2 or its state_dict")
    loaded = loaded.float().eval()
    _check_runs(loaded, str(path))
    return loaded


def _check_runs(model: nn.Module, source: str) -> None:
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 3, 32, 32))
    except Exception as error:
        detail = str(error).splitlines()[0][:120]
        raise InputError(f"{source}: its layers do not fit together ({detail})") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    _check_there(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({str(error).splitlines()[0]})") from error


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a .pth with a MobileNetV2 or its state_dict")


def _unpickle(path: Path) -> object:
    _check_there(path)
    try:
        with torch.serialization.safe_globals(_STOCK_CLASSES):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "persistent_load" in str(error):
            raise InputError(
                f"{path}: a whole network in PyTorch's format of before 1.6, which cannot be loaded without running "
                "its code; save it again with a newer PyTorch, or save its state_dict"
            ) from error
        foreign = _foreign_names(path, str(error))
        if not foreign:
            raise InputError(f"{path}: not a PyTorch file, or a damaged one") from error
        raise InputError(f"{path}: refused, it holds {foreign}, which is not part of a MobileNetV2") from error
    except PermissionError as error:
        raise InputError(f"{path}: may not be read ({error.strerror})") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError,
            zipfile.BadZipFile) as error:  # fmt: skip
        raise InputError(f"{path}: not a whole PyTorch file (truncated or damaged?)") from error


def _foreign_names(path: Path, message: str) -> str:
    """The classes or functions in a pickle that are not MobileNetV2's, as the file names them."""
    try:
        with torch.serialization.safe_globals(_STOCK_CLASSES):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # an old file format, or a damaged one: the loader's message still names the first
        names = re.findall(r"(?:GLOBAL|global:?) ([\w.]+)", message)[:1]
    # A foreign network also holds layers of torch that MobileNetV2 does not: its own class tells more.
    return ", ".join(sorted(names, key=lambda name: (name.startswith("torch."), name))[:3])

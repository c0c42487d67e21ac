"""Find a MobileNetV2's weights anywhere in a checkpoint, and clean them.

The search does not depend on the keys above the weights. A file's content is flattened, so that
`checkpoint["model"]["module.features.0.0.weight"]` becomes `model.module.features.0.0.weight`. Wherever the name of a
MobileNetV2's first weight occurs, the text before it is the prefix of one network's weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pruner.errors import InputError
from pruner.network.mobilenet import weight_names
from pruner.network.pickles import StandIn
from pruner.network.timm_names import TIMM_STEM, timm_difference, torchvision_name
from pruner.network.whole_modules import is_module

_WRAPPER = r"(?:(?:module|_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.)"
"""What DataParallel, torch.compile and others insert into names, including those of single wrapped layers."""
_STEM = re.compile(
    rf"(?P<prefix>(?:.*\.)?)(?:features\.{_WRAPPER}*0\.{_WRAPPER}*0\.|conv_stem\.){_WRAPPER}*"
    r"(?:parametrizations\.)?weight(?:_orig|_g|\.original0?)?"
)
_AVERAGE = re.compile(r"(?:^|[._])(ema|swa|avg|averaged?|shadow|teacher|target|momentum)(?=[._]|$)", re.IGNORECASE)

_COUNTERS = {"total_ops", "total_params",  # thop
             "n_averaged",  # torch.optim.swa_utils.AveragedModel
             "input_shape", "output_shape", "parameter_quantity", "inference_memory", "MAdd", "duration", "Flops",
             "Memory"}  # torchstat  # fmt: skip
_OBSERVER = re.compile(r"(?:^|\.)activation_post_process(?:_\d+)?\.(?!.*fake_quant)")

_REMEDIES = (
    (".parametrizations.", "is parametrised; call torch.nn.utils.parametrize.remove_parametrizations before saving"),
    (".weight_g", "belongs to weight_norm; call torch.nn.utils.remove_weight_norm before saving"),
    (".weight_u", "belongs to spectral_norm; call torch.nn.utils.remove_spectral_norm before saving"),
    ("fake_quant", "belongs to quantisation-aware training; save the network's state_dict() before preparing it"),
    ("_packed_params", "belongs to a quantised network; save the 32-bit network's state_dict()"),
)
"""(part of a name, what such a tensor is, and what to do)."""


@dataclass(slots=True)
class Found:
    """The weights of one network in a file, or a whole pickled network."""

    prefix: str
    """The prefix of its weights' names, such as `model.module.`."""
    tensors: dict[str, object] = field(default_factory=dict)
    """Name without the prefix -> the value in the file."""
    module: StandIn | None = None
    """The whole network, if the file holds one."""

    @property
    def is_average(self) -> bool:
        """Does its name mark it as a running average of another network's weights, or as a teacher?"""
        return _AVERAGE.search(self.prefix) is not None


def find(content: object) -> list[Found]:
    """Find everything in a file that may be a MobileNetV2, in the file's order."""
    if is_module(content):
        assert isinstance(content, StandIn)
        return [Found("", module=content)]
    leaves = list(_leaves(content, "", set()))
    found = {
        name: Found(name, module=leaf) for name, _, leaf in leaves if isinstance(leaf, StandIn) and is_module(leaf)
    }
    for name, _, _ in leaves:
        if match := _STEM.fullmatch(name):
            found.setdefault(match["prefix"], Found(match["prefix"]))
    prefixes = [prefix for prefix, network in found.items() if network.module is None]
    for network in found.values():
        if network.module is None:
            others = tuple(name for name in prefixes if name.startswith(network.prefix) and name != network.prefix)
            mine = [leaf for leaf in leaves if leaf[0].startswith(network.prefix) and not leaf[0].startswith(others)]
            network.tensors = _beside_weights(mine, network.prefix)
    return list(found.values())


def _leaves(value: object, name: str, seen: set[int]) -> Iterator[tuple[str, int, object]]:
    """Yield (name, id of its container, value) for every value that is not a container, each object once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    for key, item in _items(value):
        here = f"{name}{key}"
        if not isinstance(item, Mapping | list | tuple):
            yield here, id(value), item
        yield from _leaves(item, f"{here}.", seen)


def _items(value: object) -> Iterable[tuple[object, object]]:
    """The items of a container by key or index, or the attributes of an object that is not a module."""
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, list | tuple):
        return enumerate(value)
    return value.attributes.items() if isinstance(value, StandIn) and not is_module(value) else ()


def _beside_weights(leaves: list[tuple[str, int, object]], prefix: str) -> dict[str, object]:
    """The values that share a container with the network's weights. Optimizer states and the like are elsewhere."""
    names = weight_names()
    short = [
        (re.sub(rf"(?<=\.){_WRAPPER}", "", name.removeprefix(prefix)), where, leaf) for name, where, leaf in leaves
    ]
    known = {
        where
        for name, where, _ in short
        if torchvision_name(name) in names or name.startswith(("features.", "classifier.", "blocks."))
    }
    return {name: leaf for name, where, leaf in short if where in known}


def clean(tensors: Mapping[str, object], source: str, *, hung_on: bool = False) -> dict[str, Tensor]:
    """Reduce `tensors` to the weights, under torchvision's names, in 32 bits; `num_batches_tracked` may be missing.

    Masks of torch.nn.utils.prune are multiplied in, timm's names are translated, a classifier that is a single Linear
    becomes `classifier.1`, and counters' buffers are dropped.
    `hung_on`: drop all other tensors, too, because they take no part in what the network computes.

    Raises InputError, beginning with `source`, if the weights are not a MobileNetV2's, or not finite floats.
    """

    def refuse(what: str) -> InputError:
        return InputError(f"{source}: not the weights of a MobileNetV2 ({what})")

    for name, value in tensors.items():
        if isinstance(value, Tensor) and value.is_quantized:
            raise InputError(f"{source}: {name} is quantised; save the 32-bit network's state_dict()")
        if remedy := next((remedy for part, remedy in _REMEDIES if part in f".{name}" and not hung_on), None):
            raise InputError(f"{source}: {name} {remedy}")
    state = _unmasked(tensors)
    layers = [name.removesuffix(".weight") for name in state if re.fullmatch(r"classifier\.(.+\.)?weight", name)]
    if len(layers) > 1 and not hung_on:
        raise refuse(f"its classifier has more layers than one Linear: {', '.join(layers)}")
    if len(layers) == 1:
        state = {re.sub(rf"^{re.escape(layers[0])}\.", "classifier.1.", name): value for name, value in state.items()}
    if TIMM_STEM in state:
        if difference := timm_difference(state):
            raise refuse(difference)
        state = {torchvision_name(name): value for name, value in state.items()}
    expected = weight_names()
    lacking = [name for name in expected if name not in state and not name.endswith(".num_batches_tracked")]
    if lacking:
        raise refuse(f"it lacks {lacking[0]}")
    foreign = [name for name, value in state.items() if name not in expected and not _is_dropped(name, value)]
    if foreign and not hung_on:
        raise refuse(f"it has a foreign {foreign[0]}")
    return {name: _number(state[name], name, source) for name in expected if name in state}


def _unmasked(tensors: Mapping[str, object]) -> dict[str, object]:
    """Multiply `weight_orig` by `weight_mask`, as torch.nn.utils.prune does in its forward pass."""
    state = dict(tensors)
    for name, kept in tensors.items():
        mask = tensors.get(f"{name.removesuffix('_orig')}_mask")
        if (
            name.endswith("_orig")
            and isinstance(kept, Tensor)
            and isinstance(mask, Tensor)
            and kept.shape == mask.shape
        ):
            base = name.removesuffix("_orig")
            state[base] = kept.detach() * mask
            del state[name], state[f"{base}_mask"]
    return state


def _is_dropped(name: str, value: object) -> bool:
    leaf = name.rpartition(".")[2]
    return not isinstance(value, Tensor) or leaf in _COUNTERS or _OBSERVER.search(name) is not None


def _number(value: object, name: str, source: str) -> Tensor:
    """Copy a weight in 32 bits, or a batch count. Raises InputError if it is neither, or not finite."""
    if not isinstance(value, Tensor):
        is_array = isinstance(value, StandIn) and value.name.startswith("numpy.")
        what = "is not a tensor, but an array of NumPy; convert it" if is_array else "is not a tensor"
        raise InputError(f"{source}: not the weights of a MobileNetV2 ({name} {what})")
    if value.layout != torch.strided or value.is_meta:
        what = "has no values (device meta)" if value.is_meta else "is not a dense tensor"
        raise InputError(f"{source}: {name} {what}; save the network's own state_dict()")
    if name.endswith(".num_batches_tracked"):
        return value.detach().to(torch.int64).clone()
    if not value.is_floating_point():
        raise InputError(f"{source}: {name} has values of type {value.dtype}, not floating point")
    number = value.detach().to(torch.float32).clone(memory_format=torch.contiguous_format)
    if not number.isfinite().all():
        raise InputError(f"{source}: {name} has values that are not finite (infinite, or not a number)")
    return number

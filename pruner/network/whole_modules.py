"""Inspect a whole pickled network, read as stand-ins, and take its weights, without running its classes' code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual, MobileNetV2
from torchvision.ops.misc import Conv2dNormActivation

from pruner.network.mobilenet import SETTINGS, architecture_difference
from pruner.network.pickles import StandIn

_WRAPPERS = {
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
}
"""Wrapper modules that compute what the wrapped module computes -> the name under which they hold it."""

_CLASSES: dict[str, type[nn.Module]] = {
    **{
        f"{kind.__module__}.{kind.__qualname__}": kind
        for kind in (MobileNetV2, InvertedResidual, Conv2dNormActivation, nn.Sequential, nn.Conv2d, nn.BatchNorm2d,
                     nn.ReLU6, nn.Dropout, nn.Linear)
    },
    # It trains differently over several processes, but computes the same in eval mode.
    "torch.nn.modules.batchnorm.SyncBatchNorm": nn.BatchNorm2d,
    # Names in older torchvision versions: 0.3 to 0.8, 0.9 to 0.11, 0.12.
    "torchvision.models.mobilenet.MobileNetV2": MobileNetV2,
    "torchvision.models.mobilenet.InvertedResidual": InvertedResidual,
    "torchvision.models.mobilenet.ConvBNReLU": Conv2dNormActivation,
    "torchvision.models.mobilenetv2.ConvBNReLU": Conv2dNormActivation,
    "torchvision.models.mobilenetv2.ConvBNActivation": Conv2dNormActivation,
    "torchvision.ops.misc.ConvNormActivation": Conv2dNormActivation,
}  # fmt: skip
"""The classes that a MobileNetV2 is made of, by their names in pickles."""


def is_module(value: object) -> bool:
    """Is this the stand-in of an nn.Module?"""
    return isinstance(value, StandIn) and (
        value.name in _WRAPPERS or isinstance(value.attributes.get("_modules"), dict)
    )


def module_difference(module: StandIn, *, to_prune: bool) -> str | None:
    """The first difference of a pickled network from MobileNetV2 in anything but widths; None if there is none.

    `to_prune`: a classifier that is a single Linear counts as no difference, since its weights can be used.
    """
    inner = _unwrap(module)
    if _CLASSES.get(inner.name) is not MobileNetV2:
        name = inner.name.rpartition(".")[2] if inner.name.startswith("torch.") else inner.name
        return f"holds a {name}, not a MobileNetV2; if there is one in it, save that one's state_dict() alone"
    network = _skeleton(inner)
    classifier = getattr(network, "classifier", None)
    if to_prune and isinstance(classifier, nn.Linear):
        network.classifier = nn.Sequential(nn.Dropout(), classifier)
    difference = architecture_difference(network)
    return difference and f"not a MobileNetV2: {difference}"


def module_tensors(module: StandIn) -> dict[str, object]:
    """Name -> parameter or buffer, as in its state_dict()."""
    return dict(_tensors(_unwrap(module), ""))


def _tensors(module: StandIn, prefix: str) -> Iterator[tuple[str, object]]:
    for registry in ("_parameters", "_buffers"):
        for name, value in module.attributes.get(registry, {}).items():
            if value is not None:
                yield f"{prefix}{name}", value
    for name, child in _children(module):
        yield from _tensors(child, f"{prefix}{name}.")


def _children(module: StandIn) -> Iterator[tuple[str, StandIn]]:
    for name, child in module.attributes["_modules"].items():
        if child is not None:
            yield name, _unwrap(child)


def _unwrap(module: StandIn) -> StandIn:
    while module.name in _WRAPPERS:
        modules = module.attributes.get("_modules")
        inner = modules[_WRAPPERS[module.name]] if modules else module.arguments[0]  # the latter: OptimizedModule
        if not (isinstance(inner, StandIn) and is_module(inner)):
            raise TypeError("not a module")
        module = inner
    return module


def _skeleton(module: StandIn) -> nn.Module:
    """Build real modules of the same classes and settings, without weights, for `architecture_difference`."""
    attributes = module.attributes
    kind = _CLASSES.get(module.name) or type(module.name.rpartition(".")[2], (nn.Module,), {})
    made: nn.Module = nn.Module.__new__(kind)
    nn.Module.__init__(made)
    vars(made).update({key: attributes[key] for key in SETTINGS if key in attributes})
    if "forward" in attributes or any(_hooks(attributes)):
        vars(made)["forward"] = None
    if kind is nn.Conv2d:
        parameters = attributes["_parameters"]
        has_bias = any(parameters.get(name) is not None for name in ("bias", "bias_orig"))
        made.register_parameter("bias", nn.Parameter(torch.empty(0)) if has_bias else None)
    for name, child in _children(module):
        made.add_module(name, _skeleton(child))
    return made


def _hooks(attributes: Mapping[str, Any]) -> Iterator[object]:
    """Yield the hooks that would change the computation. Those of torch.nn.utils.prune do not: masks are applied."""
    for registry in ("_forward_hooks", "_forward_pre_hooks"):
        for hook in attributes.get(registry, {}).values():
            if not (isinstance(hook, StandIn) and hook.name.startswith("torch.nn.utils.prune.")):
                yield hook

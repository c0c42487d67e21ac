"""Build and inspect MobileNetV2s of any widths, and check whether a network still is one.

Torchvision's class is used unchanged, so that exported networks consist of stock classes only.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNet_V2_Weights, MobileNetV2

from pruner.errors import InputError
from pruner.network.structure import GROUP, GROUPS


def widths(model: nn.Module) -> dict[str, int]:
    """The network's widths: group name -> number of channels."""
    return {group.name: _conv(model, group.root).out_channels for group in GROUPS}


def classes(model: nn.Module) -> int:
    """The number of classes."""
    layer = model.get_submodule("classifier.1")
    assert isinstance(layer, nn.Linear)
    return layer.out_features


def _conv(model: nn.Module, name: str) -> nn.Conv2d:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Conv2d)
    return layer


def fresh(class_count: int, seed: int) -> MobileNetV2:
    """Build a dense network with random weights, determined by the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MobileNetV2(num_classes=class_count)


def imagenet(class_count: int, seed: int) -> MobileNetV2:
    """Build a dense network with torchvision's ImageNet weights and a new classifier.

    Raises InputError if the weights are neither cached nor downloadable.
    """
    weights = MobileNet_V2_Weights.IMAGENET1K_V1
    try:
        state = weights.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        target = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise InputError(
            f"ImageNet weights: cannot be downloaded ({error}); put the file at {target}, or give a trained network"
        ) from error
    return with_new_classifier(from_state_dict(state, "ImageNet weights"), class_count, seed)


def with_new_classifier(model: MobileNetV2, class_count: int, seed: int) -> MobileNetV2:
    """Replace the network's classifier, in place, by a random one for `class_count` classes."""
    layer = nn.Linear(_conv(model, GROUP["head"].root).out_channels, class_count)
    nn.init.normal_(layer.weight, 0, 0.01, generator=torch.Generator().manual_seed(seed))
    nn.init.zeros_(layer.bias)
    model.classifier = nn.Sequential(nn.Dropout(0.2), layer)  # as torchvision makes it
    return model


def weight_names() -> dict[str, None]:
    """The names in a MobileNetV2's state_dict, in order; they do not depend on its widths."""
    return dict.fromkeys(_reference().state_dict())


def from_state_dict(state: Mapping[str, Tensor], source: str) -> MobileNetV2:
    """Build the MobileNetV2 that has these weights, of any widths, with every weight trainable.

    `state`: all of `weight_names`, except that BatchNorm's `num_batches_tracked` may be missing. The network takes over
    the tensors.

    Raises InputError, beginning with `source`, if the shapes are not a MobileNetV2's.
    """
    network = copy.deepcopy(_reference())
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
            shape = state[f"{name}.weight"].shape
            if len(shape) != layer.weight.dim():
                raise InputError(f"{source}: not the weights of a MobileNetV2 ({name}.weight has another shape)")
            _resize(layer, shape)
    counts = {name: torch.tensor(0) for name in weight_names() if name.endswith(".num_batches_tracked")}
    try:
        network.load_state_dict({**counts, **state}, assign=True)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise InputError(f"{source}: not the weights of a MobileNetV2 ({detail})") from error
    if (channels := _conv(network, "features.0.0").in_channels) != 3:
        raise InputError(
            f"{source}: takes images of {channels} channel{'s'[: channels - 1]}; give a network for the 3 of RGB"
        )
    if _starts_with_shortcut(widths(network)):
        raise InputError(f"{source}: so narrow (a width_mult of 0.25 or less) that its first block has a residual "
                         "connection, which MobileNetV2's lacks; give a network with a larger width_mult")  # fmt: skip
    return network


def _starts_with_shortcut(width: Mapping[str, int]) -> bool:
    """Does the first block have a residual connection, which MobileNetV2's does not?

    torchvision adds one to every block of stride 1 whose input and output are equally wide. With a width_mult of 0.25
    or less, this includes the first block. In a pruned network such widths are a coincidence, since nothing is rebuilt.
    In an unpruned network, every hidden width is six times the width of the block's input.
    """
    if width["stage1.hidden.1"] != width["stage1.output"]:
        return False
    for group in GROUPS:
        if group.kind == "hidden" and group.stage != "stage1":
            stage = int(group.stage.removeprefix("stage")) - (not group.residual)
            if width[group.name] != 6 * width[f"stage{stage}.output"]:
                return False
    return True


def _resize(layer: nn.Conv2d | nn.BatchNorm2d | nn.Linear, shape: torch.Size) -> None:
    """Resize a layer, without values, to fit a weight of this shape."""

    def empty(*size: int) -> nn.Parameter:
        return nn.Parameter(torch.empty(size, device="meta"))

    if isinstance(layer, nn.Conv2d):
        depthwise = layer.groups > 1
        layer.out_channels, layer.in_channels = shape[0], shape[0] if depthwise else shape[1]
        layer.groups = shape[0] if depthwise else 1
        layer.weight = empty(shape[0], layer.in_channels // layer.groups, *layer.kernel_size)
    elif isinstance(layer, nn.BatchNorm2d):
        layer.num_features = shape[0]
        layer.weight, layer.bias = empty(shape[0]), empty(shape[0])
        layer.running_mean, layer.running_var = empty(shape[0]).detach(), empty(shape[0]).detach()
    else:
        layer.out_features, layer.in_features = shape
        layer.weight, layer.bias = empty(*shape), empty(shape[0])


def architecture_difference(model: nn.Module) -> str | None:
    """The first difference from MobileNetV2 in anything but widths; None if there is none.

    A MobileNetV2 has the same modules in the same order, of exactly the same classes and settings, without hooks.
    """
    reference = dict(_reference().named_modules())
    found = dict(model.named_modules())
    for name in [*reference, *found]:
        if name not in found:
            return f"{name} is missing"
        if name not in reference:
            return f"{name} ({type(found[name]).__name__}) does not belong there"
        if difference := _module_difference(reference[name], found[name]):
            return f"{name or 'the network'} {difference}"
    if list(reference) != list(found):
        return "its layers are in another order"
    return None


_COMPARED = ("kernel_size", "stride", "padding", "dilation", "eps", "affine", "use_res_connect", "inplace")
SETTINGS = (*_COMPARED, "groups", "out_channels")
"""The module attributes that distinguish a MobileNetV2 from another network."""


@functools.cache
def _reference() -> MobileNetV2:
    """A MobileNetV2 without weights, used for its structure only; never modify it."""
    with torch.device("meta"):
        return MobileNetV2(num_classes=10)


def _module_difference(reference: nn.Module, found: nn.Module) -> str | None:
    if type(found) is not type(reference):
        return f"is a {type(found).__name__}, not a {type(reference).__name__}"
    if "forward" in vars(found) or found._forward_hooks or found._forward_pre_hooks:
        return "has a hook, or its own forward"
    for key in _COMPARED:
        if getattr(found, key, None) != getattr(reference, key, None):
            return f"has {key} {getattr(found, key, None)}, not {getattr(reference, key, None)}"
    if isinstance(found, nn.Conv2d) and isinstance(reference, nn.Conv2d):
        if (found.groups == 1) != (reference.groups == 1) and found.out_channels > 1:
            return "is no longer depthwise" if reference.groups > 1 else "has become grouped"
        if (found.bias is None) != (reference.bias is None):
            return "has a bias" if reference.bias is None else "has lost its bias"
    return None

"""Load a MobileNetV2 from any common form of file, without running any of the file's code.

`file_kinds` detects the file's kind from its content. `pickles` reads pickles as inert stand-ins. `state_dicts` and
`whole_modules` search everything in the file for the weights. A clean network is built from them: stock layers with
torchvision's settings, no hooks or extra attributes, every weight trainable.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.errors import InputError
from pruner.network.file_kinds import weights_format
from pruner.network.mobilenet import classes, from_state_dict
from pruner.network.pickles import StandIn, read_pickle
from pruner.network.state_dicts import Found, clean, find
from pruner.network.whole_modules import module_difference, module_tensors


def load_dense(path: Path, class_count: int) -> MobileNetV2:
    """Load a network to prune, which must have `class_count` classes; its classifier may be a single Linear."""
    model = load_network(path, to_prune=True)
    if classes(model) != class_count:
        raise InputError(
            f"{path}: has {classes(model)} classes, the data has {class_count}; "
            f"to train from it, set [dense] init = {str(path)!r}"
        )
    return model


def load_network(path: Path | str, *, to_prune: bool = False) -> MobileNetV2:
    """Load a MobileNetV2 from a whole pickled module, a state_dict, or safetensors.

    The weights may be nested, wrapped, and mixed with other content. If a file holds several networks, those whose
    names mark them as running averages or teachers are ignored: an average is only as good as its training was long,
    which the file does not show. All remaining networks must be equal.

    Args:
        path: The file. None of its code is run.
        to_prune: Whether the network will be pruned further. If so, a whole module may also have a single Linear as
            its classifier, in place of torchvision's Sequential.

    Returns:
        The network, on the CPU, in eval mode, every weight trainable.

    Raises:
        InputError: The file cannot be used; the message says what it holds and what to do.
    """
    path = Path(path)
    content = _read_safetensors(path) if weights_format(path) == "safetensors" else read_pickle(path)
    try:
        found = find(content)
    except RecursionError as error:
        raise InputError(f"{path}: not a whole PyTorch file (it holds itself?)") from error
    if not found:
        raise InputError(f"{path}: not the weights of a MobileNetV2 (it lacks features.0.0.weight){_instead(content)}")
    made: list[tuple[Found, MobileNetV2]] = []
    errors: list[InputError] = []
    for one in sorted(found, key=lambda one: one.is_average):
        if made and one.is_average > made[0][0].is_average:
            break
        try:
            made.append((one, _build(one, path, to_prune)))
        except InputError as error:
            errors.append(error)
    if not made:
        raise errors[0]
    model = made[0][1]
    if not all(_equal(model, other) for _, other in made):
        names = ", ".join(one.prefix.rstrip(".") or "the top level" for one, _ in made)
        raise InputError(f"{path}: holds several networks ({names}); save the state_dict() of one of them alone")
    return model


def _build(found: Found, path: Path, to_prune: bool) -> MobileNetV2:
    where = found.prefix.rstrip(".")
    source = f"{path}, {where}" if where else str(path)
    tensors = found.tensors
    if found.module is not None:
        try:
            difference = module_difference(found.module, to_prune=to_prune)
            tensors = module_tensors(found.module)
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise InputError(f"{source}: not a whole module (damaged?)") from error
        if difference:
            raise InputError(f"{source}: {difference}")
    model = from_state_dict(clean(tensors, source, hung_on=found.module is not None), source).eval()
    _check_runs(model, source)
    return model


def _check_runs(model: nn.Module, source: str) -> None:
    try:
        with torch.inference_mode():
            logits = model(torch.zeros(1, 3, 32, 32))
    except Exception as error:
        detail = str(error).splitlines()[0][:120]
        raise InputError(f"{source}: its layers do not fit together ({detail})") from error
    if not logits.isfinite().all():
        raise InputError(f"{source}: its outputs are not finite, though its weights are")


def _equal(one: nn.Module, other: nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return all(mine[name].equal(value) for name, value in theirs.items())


def _instead(content: object) -> str:
    """Describe briefly what a file without a MobileNetV2 holds."""
    if isinstance(content, StandIn):
        return f"; it holds a {content.name}"
    names = [str(key) for key in content][:3] if isinstance(content, dict) else []
    return f"; it holds {', '.join(names)}{' ...' if len(content) > 3 else ''}" if names else ""  # type: ignore[arg-type]


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file. Raises InputError if it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({str(error).splitlines()[0]})") from error

"""The criteria by which channels are ranked: one score per channel of every group, by Torch-Pruning.

All scores are taken from the dense network, before anything is pruned, so they depend on nothing a trial samples and
one set serves a whole study.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import Tensor, nn

from pruner.channels.obs import obs_scores
from pruner.data.batches import map_batches
from pruner.data.datasets import Split
from pruner.errors import InputError, check_name
from pruner.network.mobilenet import widths
from pruner.network.structure import GROUPS
from pruner.recipe import IMPORTANCES
from pruner.system.seeds import mix

Scores = dict[str, Tensor]
"""Group name -> float tensor (channels,); the smallest go first."""

NEED_IMAGES = ("taylor", "hessian", "obs")
"""These rank by calibration images: by gradients of the real loss, or by the features they make."""

_CRITERIA: dict[str, Callable[[], Any]] = {
    "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1, normalizer=None),
    "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2, normalizer=None),
    "taylor": lambda: tp.importance.GroupTaylorImportance(normalizer=None),
    "hessian": lambda: tp.importance.GroupHessianImportance(normalizer=None),
    "lamp": lambda: tp.importance.LAMPImportance(),
    "fpgm": lambda: tp.importance.FPGMImportance(normalizer=None),
    "bn_scale": lambda: tp.importance.BNScaleImportance(normalizer=None),
    "random": lambda: tp.importance.RandomImportance(),
}


def score_channels(
    model: nn.Module,
    importance: str,
    calibration: Split | None = None,
    *,
    resolution: int = 224,
    seed: int = 0,
    on_images: Callable[[int], None] | None = None,
) -> Scores:
    """Score every channel of the network by one of IMPORTANCES. The network is left as it was.

    taylor: Molchanov et al. 2019, |weight * gradient| with gradients summed over the calibration images.
    hessian: LeCun et al. 1989 (Optimal Brain Damage), weight^2 * mean squared gradient, an image at a time.
    obs: see `pruner.channels.obs`; sorted, these scores are error curves.
    lamp: Lee et al. 2021. fpgm: He et al. 2019. bn_scale: Liu et al. 2017 (Network Slimming).

    `on_images(n)` is told of every n calibration images done. Raises InputError where images are needed and missing.
    """
    check_name("importance", importance, IMPORTANCES)
    model = copy.deepcopy(model).eval().requires_grad_(True)  # also where the network given is frozen
    if calibration is not None:
        model.to(calibration.images.device)
    if importance in NEED_IMAGES:
        if calibration is None or not len(calibration):
            raise InputError(f"importance: {importance!r} needs calibration images")
        if importance == "obs":
            return obs_scores(model, calibration, resolution=resolution, seed=seed, on_images=on_images)
        squared = importance == "hessian"
        _set_gradients(model, calibration, resolution, squared, on_images)
    criterion = _CRITERIA[importance]()
    graph = dependency_graph(model)
    scores: Scores = {}
    width = widths(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(seed, 0x5C0))
        for group in GROUPS:
            root = model.get_submodule(group.root)
            members = graph.get_pruning_group(root, tp.prune_conv_out_channels, list(range(width[group.name])))
            scores[group.name] = criterion(members).detach().float().cpu()
    return scores


def dependency_graph(model: nn.Module) -> tp.DependencyGraph:
    """Torch-Pruning's graph of which channels of the network can only be pruned together."""
    device = next(model.parameters()).device
    with torch.enable_grad():  # tracing follows gradients
        return tp.DependencyGraph().build_dependency(model, torch.zeros(1, 3, 32, 32, device=device))


def _set_gradients(
    model: nn.Module,
    calibration: Split,
    resolution: int,
    squared: bool,
    on_images: Callable[[int], None] | None,
) -> None:
    """Leave in every parameter's `.grad` the sum of gradients, or the mean of the squared ones of single images.

    Torch-Pruning's own accumulation keeps only the last sample (1.6.1), hence this one.
    """
    parameters = list(model.parameters())
    sums = [torch.zeros_like(parameter) for parameter in parameters]

    def gradients(images: Tensor, labels: Tensor, _number: int) -> list[Tensor]:
        loss = F.cross_entropy(model(images), labels, reduction="sum")
        found = torch.autograd.grad(loss, parameters)
        return [gradient.square() for gradient in found] if squared else list(found)

    batch_size = 1 if squared else 8
    for found in map_batches(gradients, calibration, batch_size=batch_size, resolution=resolution, on_images=on_images):
        torch._foreach_add_(sums, found)
    for parameter, total in zip(model.parameters(), sums, strict=True):
        parameter.grad = total / len(calibration) if squared else total

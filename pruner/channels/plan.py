"""Channel plans: exactly which channels stay. A plan is made without modifying the network, then applied to a copy.

The result is always what was asked for: of `width` channels, `kept(width, ratio)` stay in every group that is not
ignored. High-level pruners silently leave a group unpruned if rounding leaves nothing to prune; this one never does.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
import torch_pruning as tp
from torch import Tensor, nn

from pruner.channels.allocation import WidthOptions, allocate
from pruner.channels.importance import Scores, dependency_graph
from pruner.errors import InputError
from pruner.network.count import GRADER_RESOLUTION, count_of
from pruner.network.mobilenet import classes, widths
from pruner.network.structure import GROUPS, Group
from pruner.recipe import Prune

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class ChannelPlan:
    """Which channels of the dense network stay, and the operations and parameters before and after."""

    keep: Mapping[str, tuple[int, ...]]
    """Group name -> the channels that stay, ascending."""
    dense_widths: Mapping[str, int]
    """Group name -> its channels in the dense network."""
    mflops: float
    """Millions of operations of the pruned network, as the grader counts them, at the recipe's `count_resolution`."""
    params: int
    dense_mflops: float
    dense_params: int

    @property
    def kept_widths(self) -> dict[str, int]:
        """Group name -> how many channels stay."""
        return {name: len(channels) for name, channels in self.keep.items()}

    @property
    def mflops_removed(self) -> float:
        """The share of the dense network's operations that the plan removes."""
        return 1 - self.mflops / self.dense_mflops

    @property
    def params_removed(self) -> float:
        """The share of the dense network's parameters that the plan removes."""
        return 1 - self.params / self.dense_params

    def as_json(self) -> dict[str, Any]:
        """The plan as a JSON-ready value, from which `from_json` restores an equal plan."""
        return {
            "keep": {name: list(channels) for name, channels in self.keep.items()},
            "dense_widths": dict(self.dense_widths),
            "mflops": self.mflops,
            "params": self.params,
            "dense_mflops": self.dense_mflops,
            "dense_params": self.dense_params,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> ChannelPlan:
        """Restore the plan from the value of `as_json`."""
        keep = {name: tuple(channels) for name, channels in data["keep"].items()}
        return ChannelPlan(**{**data, "keep": keep})


def kept(width: int, ratio: float, min_channels: int = 1, round_to: int = 1) -> int:
    """How many of `width` channels stay when the fraction `ratio` is pruned.

    max(min_channels, round(width * (1 - ratio))), rounded to the nearest multiple of `round_to`, but at least one
    multiple and at most `width`. The result never rises with the ratio.

    >>> kept(96, 0.5), kept(96, 0.95, round_to=8), kept(24, 0.95, min_channels=4), kept(24, 0.0, round_to=16)
    (48, 8, 4, 24)
    """
    return width if ratio == 0 else _rounded(round(width * (1 - ratio)), width, min_channels, round_to)


def _rounded(wanted: int, width: int, min_channels: int, round_to: int) -> int:
    if round_to > 1:
        wanted = round_to * round(wanted / round_to)
        min_channels = round_to * -(-max(min_channels, round_to) // round_to)
    return min(width, max(min_channels, wanted))


def make_plan(model: nn.Module, prune: Prune, scores: Scores, curves: Scores | None = None) -> ChannelPlan:
    """Make the plan that a recipe's `Prune` gives for a network. The network is not modified.

    Args:
        model: A MobileNetV2 of any widths.
        prune: What to prune, and how far.
        scores: Group name -> importance of each of its channels, shape (channels,).
        curves: The channels' scores by `obs`, by which a target is allocated; required if `needs_curves(prune)`.

    Returns:
        The plan.

    Raises:
        InputError: `target_mflops` cannot be reached.
    """
    ignored = _ignored(prune.ignored_layers)
    free = [group for group in GROUPS if group.name not in ignored]
    before = widths(model)
    if prune.target_mflops is not None:
        keep_counts = _kept_for_target(free, prune, before, classes(model), curves)
    elif prune.global_pruning_ratio is None:
        keep_counts = {group.name: _kept_by_stage(group, len(scores[group.name]), prune) for group in free}
    else:
        keep_counts = _kept_globally(free, prune, scores)
    keep = {}
    for group in GROUPS:
        stay = keep_counts.get(group.name, before[group.name])
        ranking = scores[group.name].argsort(descending=True, stable=True)
        keep[group.name] = tuple(sorted(ranking[:stay].tolist()))
    dense_mflops, dense_params = count_of(before, classes(model), prune.count_resolution)
    after = {name: len(channels) for name, channels in keep.items()}
    mflops, params = count_of(after, classes(model), prune.count_resolution)
    return ChannelPlan(keep, before, mflops, params, dense_mflops, dense_params)


def interpolate_plan(
    plan: ChannelPlan, scores: Scores, target: float, class_count: int, resolution: int = GRADER_RESOLUTION
) -> ChannelPlan:
    """Make a plan of about `target` MFLOPs that keeps the channels of `plan` and the best-scored of the others.

    `resolution`: that for which operations are counted.

    On a logarithmic scale, every width lies at the same point between the dense network's and the plan's.
    """
    low, high = 0.0, 1.0  # 0: dense, 1: the plan
    kept = plan.kept_widths
    for _ in range(20):
        place = (low + high) / 2
        some = {name: round(full * (kept[name] / full) ** place) for name, full in plan.dense_widths.items()}
        low, high = (place, high) if count_of(some, class_count, resolution)[0] > target else (low, place)
    keep = {}
    for name, width in some.items():
        ranking = scores[name].clone()
        ranking[list(plan.keep[name])] = torch.inf
        keep[name] = tuple(sorted(ranking.argsort(descending=True, stable=True)[: max(width, kept[name])].tolist()))
    after = {name: len(channels) for name, channels in keep.items()}
    mflops, params = count_of(after, class_count, resolution)
    return replace(plan, keep=keep, mflops=mflops, params=params)


def compose_plans(before: ChannelPlan, after: ChannelPlan) -> ChannelPlan:
    """The plan that turns the network pruned by `before` into the one pruned by `after`.

    `after` must keep a subset of the channels that `before` keeps.
    """
    keep = {
        name: tuple(channels.index(channel) for channel in after.keep[name]) for name, channels in before.keep.items()
    }
    return replace(
        after, keep=keep, dense_widths=before.kept_widths, dense_mflops=before.mflops, dense_params=before.params
    )


def needs_curves(prune: Prune) -> bool:
    """Does `make_plan` need `curves`?"""
    return prune.target_mflops is not None and prune.allocation != "uniform"


def apply_plan(model: Network, plan: ChannelPlan) -> Network:
    """Build a new network with only the channels that the plan keeps. The same inputs give bit-identical weights.

    Args:
        model: The network that the plan was made for; it is not modified.
        plan: The channels to keep.

    Returns:
        The pruned network, with every parameter trainable.

    Raises:
        InputError: The plan was made for a network of other widths.
    """
    if widths(model) != dict(plan.dense_widths):
        raise InputError("plan: made for a network of other widths than this one")
    return _cut(model, plan.keep)


def _cut(model: Network, keep: Mapping[str, tuple[int, ...]]) -> Network:
    pruned = copy.deepcopy(model).requires_grad_(True)  # frozen parameters would be neither traced nor trained
    graph = dependency_graph(pruned)
    for group in GROUPS:
        root = pruned.get_submodule(group.root)
        assert isinstance(root, nn.Conv2d)
        going = sorted(set(range(root.out_channels)) - set(keep[group.name]))
        if going:
            graph.get_pruning_group(root, tp.prune_conv_out_channels, going).prune()
    wrong = {name: width for name, width in widths(pruned).items() if width != len(keep[name])}
    if wrong:
        raise AssertionError(f"asked for other widths than these: {wrong}")
    pruned.zero_grad(set_to_none=True)
    return pruned


def _kept_by_stage(group: Group, width: int, prune: Prune) -> int:
    ratios = prune.output_pruning_ratio if group.kind == "output" else prune.pruning_ratio
    return kept(width, ratios.get(group.stage, 0.0), prune.min_channels, prune.round_to)


def _kept_for_target(
    free: list[Group], prune: Prune, before: Mapping[str, int], class_count: int, curves: Scores | None
) -> dict[str, int]:
    """The widths of the groups in `free` at which the network has `target_mflops` or slightly less."""
    assert prune.target_mflops is not None
    options = {}
    for group in free:
        width = before[group.name]
        allowed = {_rounded(w, width, prune.min_channels, prune.round_to) for w in range(1, width + 1)}
        choices = sorted(allowed, reverse=True)
        if prune.allocation == "uniform":
            errors = [1 - w / width for w in choices]
        else:
            assert curves is not None
            curve = [0.0, *curves[group.name].double().sort().values.tolist()]
            error_scale = prune.error_scale.get(group.stage, 1.0)
            if group.kind == "output":
                error_scale *= prune.error_scale.get("output", 1.0)
            errors = [curve[width - w] / error_scale for w in choices]
        options[group.name] = WidthOptions(choices, errors)

    def price(some: Mapping[str, int]) -> float:
        return count_of({**before, **some}, class_count, prune.count_resolution)[0]

    how = "equal_error" if prune.allocation == "uniform" else prune.allocation
    return allocate(options, price, prune.target_mflops, how)


def _kept_globally(free: list[Group], prune: Prune, scores: Scores) -> dict[str, int]:
    """How many channels each group keeps when the lowest-scored `global_pruning_ratio` of all channels is pruned."""
    assert prune.global_pruning_ratio is not None
    if prune.global_pruning_ratio == 0 or not free:
        return {}
    # LAMP's scores are comparable across layers by design; the others need a normaliser.
    normalizer = "none" if prune.importance == "lamp" else prune.normalizer
    comparable = [_normalized(scores[group.name], normalizer) for group in free]
    owner = torch.cat([torch.full((len(part),), i) for i, part in enumerate(comparable)])
    best_first = torch.cat(comparable).argsort(descending=True, stable=True)
    stays = best_first[: round(len(owner) * (1 - prune.global_pruning_ratio))]
    counts = torch.bincount(owner[stays], minlength=len(free)).tolist()
    return {
        group.name: stay if stay == len(part) else _rounded(stay, len(part), prune.min_channels, prune.round_to)
        for group, part, stay in zip(free, comparable, counts, strict=True)
    }


def _normalized(scores: Tensor, normalizer: str) -> Tensor:
    if normalizer == "none":
        return scores
    by = {"mean": scores.mean(), "max": scores.max(), "sum": scores.sum()}[normalizer]
    return scores / by.clamp(min=torch.finfo(scores.dtype).tiny)


def _ignored(names: tuple[str, ...]) -> set[str]:
    """The groups that `ignored_layers` excludes. The classifier's outputs are never pruned anyway."""
    return {
        group.name
        for group in GROUPS
        if group.stage in names or not set(group.blocks).isdisjoint(names) or (group.residual and "residual" in names)
    }

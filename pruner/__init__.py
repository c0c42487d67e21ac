"""Prune and retrain one MobileNetV2: one network in, one network out.

The public API, usable from a notebook; it knows nothing of studies, databases, plots or the command line:

    dense = pruner.load("mobilenetv2.pth")                    # any file that holds a MobileNetV2
    resources = pruner.InMemory(data=pruner.load_data("digits"), resolution=32, dense=dense)
    recipe = pruner.Recipe(prune=pruner.Prune(pruning_ratio={"stage4": 0.5}), tune=pruner.Tune(resolution=32))
    model = pruner.compress(dense, recipe, resources)
    pruner.export(model, "pruned.pth")

The flow: `recipe` (what to do) -> `channels` (importance, then a plan: exactly which channels stay) -> `compression`
(prune, reconstruct, train) -> `measurement` -> `exports`. Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruner.channels.importance import score_channels
    from pruner.channels.plan import ChannelPlan, apply_plan, make_plan
    from pruner.compression import Compression, compress, plan_channels
    from pruner.data.loading import load as load_data
    from pruner.exports.module import export_module as export
    from pruner.measurement.measure import measure
    from pruner.network.loading import load_network as load
    from pruner.recipe import Iterative, Mask, Prune, Recipe
    from pruner.resources import InMemory
    from pruner.train import Phase, Training
    from pruner.training.fine_tune import fine_tune

_HOMES = {
    "score_channels": "pruner.channels.importance",
    "ChannelPlan": "pruner.channels.plan",
    "apply_plan": "pruner.channels.plan",
    "make_plan": "pruner.channels.plan",
    "Compression": "pruner.compression",
    "compress": "pruner.compression",
    "plan_channels": "pruner.compression",
    "load_data": "pruner.data.loading:load",
    "export": "pruner.exports.module:export_module",
    "measure": "pruner.measurement.measure",
    "load": "pruner.network.loading:load_network",
    "Mask": "pruner.recipe",
    "Prune": "pruner.recipe",
    "Recipe": "pruner.recipe",
    "InMemory": "pruner.resources",
    "fine_tune": "pruner.training.fine_tune",
    "Phase": "pruner.train",
    "Iterative": "pruner.recipe",
    "Training": "pruner.train",
}
"""Public name -> its module, and its name there where that is another. Loading all takes torch's five seconds."""

__all__ = [
    "ChannelPlan",
    "Compression",
    "InMemory",
    "Iterative",
    "Mask",
    "Phase",
    "Prune",
    "Recipe",
    "Training",
    "apply_plan",
    "compress",
    "export",
    "fine_tune",
    "load",
    "load_data",
    "make_plan",
    "measure",
    "plan_channels",
    "score_channels",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pruner' has no attribute {name!r}")
    module, _, there = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module), there or name)


def __dir__() -> list[str]:
    return __all__

"""Prune and retrain one MobileNetV2: one model in, one model out.

Usable alone, from a notebook; knows nothing of studies, databases, plots or the command line.
The flow: a `Recipe` says what to do, a `ChannelPlan` exactly which channels stay, `fine_tune` retrains,
`measure` says what came out.
"""

from pruner.channels import ChannelPlan, apply_plan, make_plan
from pruner.data import Dataset, Split, cifar10, digits
from pruner.errors import InputError
from pruner.export import export_module
from pruner.fine_tune import Epoch, fine_tune
from pruner.importance import Scores, score_channels
from pruner.measure import Measurement, count, evaluate, measure
from pruner.mobilenet import load_dense, load_network
from pruner.recipe import Prune, Recipe, Tune

__all__ = [
    "ChannelPlan",
    "Dataset",
    "Epoch",
    "InputError",
    "Measurement",
    "Prune",
    "Recipe",
    "Scores",
    "Split",
    "Tune",
    "apply_plan",
    "cifar10",
    "count",
    "digits",
    "evaluate",
    "export_module",
    "fine_tune",
    "load_dense",
    "load_network",
    "make_plan",
    "measure",
    "score_channels",
]

"""A commented study file for somebody's own images, network and goal, as `prune-search init` writes it."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the study file is for."""

    data: dict[str, str]
    """The section [data] but for the resolution."""
    resolution: int
    dense: str | None
    """The dense network's file; None: torchvision's ImageNet weights."""
    trained: bool
    """Is the dense network for the data's classes? Otherwise it gets a new classifier and is fine-tuned first."""
    max_mflops: float | None = None
    max_mflops_ratio: float | None = None
    max_latency_ms: float | None = None
    max_size_mb: float | None = None
    max_accuracy_drop: float | None = None

    @property
    def constraints(self) -> dict[str, float]:
        """The limits that were given."""
        names = ("max_mflops", "max_mflops_ratio", "max_latency_ms", "max_size_mb", "max_accuracy_drop")
        return {name: limit for name in names if (limit := getattr(self, name)) is not None}


def study_text(wishes: Wishes, dense_mflops: float) -> str:
    """The file. `dense_mflops`: the dense network's operations at the wishes' resolution.

    A limit on operations alone is met exactly: candidates of that size are evaluated untrained, and the best of them
    trained. Any other goal needs trained networks of several sizes.
    """
    alone = wishes.constraints.keys() <= {"max_mflops", "max_mflops_ratio"}
    limits = [wishes.max_mflops, wishes.max_mflops_ratio and wishes.max_mflops_ratio * dense_mflops]
    most = min((limit for limit in limits if limit), default=None)
    body = _of_one_size(most) if alone and most else _of_several_sizes(wishes, most or 0.5 * dense_mflops, dense_mflops)
    return "\n".join([*_goal(wishes, alone=bool(alone and most)), *_common(wishes), *body, ""])


def _goal(wishes: Wishes, *, alone: bool) -> list[str]:
    if alone:
        about, objectives, best = "the highest accuracy within a limit on operations", ["accuracy"], "accuracy"
    else:
        size = "latency_ms" if wishes.max_latency_ms else "params" if wishes.max_size_mb else "mflops"
        objectives = [size, "accuracy"]
        best = size if wishes.max_accuracy_drop is not None else "accuracy"
        about = "the whole trade-off; " + (
            "the smallest network that loses no more accuracy than it may is exported"
            if best == size
            else "the most accurate network within the limits is exported"
        )
    choice = [
        f"best_by = {_value(best)} # of the trials that meet the constraints, the one to export",
        "trials = 16 # over all workers and restarts; more find better",
    ]
    return [
        f"about = {_value(f'MobileNetV2, {about}.')}",
        f"objectives = {_value(objectives)} # also: params, latency_ms; or score, the course's",
        *([] if alone else choice),
        "epoch_eval_images = 0 # holdout images that are classified after each epoch, for learning curves",
    ]


def _common(wishes: Wishes) -> list[str]:
    limits = [f"{name} = {limit:g}" for name, limit in wishes.constraints.items()]
    return [
        "",
        "[data]",
        *(f"{key} = {_value(value)}" for key, value in wishes.data.items()),
        f"resolution = {wishes.resolution} # pixels a side of the images that the network is for",
        "",
        "[dense] # the network to prune",
        *(
            [f"checkpoint = {_value(wishes.dense)}"]
            if wishes.trained
            else [
                "# these weights get a new classifier and are fine-tuned on the images first",
                f"init = {_value(wishes.dense or 'imagenet')}",
                "epochs = 5",
                "learning_rate = 0.02",
            ]
        ),
        *(["", "[constraints] # a network that breaks one on its size is skipped before any training", *limits]
          if limits else []),
        "",
        "[prune]",
        f"count_resolution = {wishes.resolution} # operations are counted for images of this size",
        "reconstruction_images = 640 # training images to refit the layers that read pruned channels",
        "round_to = 8 # widths in multiples of this run faster on most devices",
        "",
        "[train]",
        "batch_size = 64",
        "distill_temperature = 4 # learn from the dense network's logits",
        "ema_decay = 0.998 # end with an average of the weights",
        "bn_recalibration_images = 2000",
    ]  # fmt: skip


def _of_one_size(most: float) -> list[str]:
    return [
        "epochs = 0 # candidates are evaluated untrained",
        "",
        "[space]",
        'importance = "obs"',
        "reconstruct = true",
        "learning_rate = 0.02",
        f"target_mflops = {math.floor(1000 * most) / 1000:.3f}",
        *_error_scales(),
        "",
        "[[searches]] # hundreds an hour",
        'name = "search"',
        "trials = 60",
        "eval_images = 1000 # of the holdout",
        "",
        "[[searches]] # the best two, trained shortly",
        'name = "short"',
        "train_only = true",
        "parents = 2",
        "train = { epochs = 1 }",
        "",
        "[[searches]] # the best of these, trained through",
        'name = "long"',
        "train_only = true",
        "train = { epochs = 10 }",
    ]


def _of_several_sizes(wishes: Wishes, most: float, dense: float) -> list[str]:
    return [
        "epochs = 4",
        "",
        "[space] # a value, a list to choose from, or a range",
        'importance = "obs"',
        "reconstruct = true",
        "learning_rate = { low = 0.005, high = 0.05, log = true }",
        f"target_mflops = {{ low = {min(0.05 * dense, 0.5 * most):.3g}, high = {most:.3g}, log = true }}",
        *_error_scales(),
    ]


def _error_scales() -> list[str]:
    stages = [f"stage{number}" for number in range(1, 8)] + ["head", "output"]
    return [
        "",
        "[space.error_scale] # how much more error a stage may bear than the others",
        *(f"{stage} = {{ low = 0.5, high = 2.0, log = true }}" for stage in stages),
    ]


def _value(value: object) -> str:
    """As TOML, which writes text and lists of text as JSON does."""
    return json.dumps(value)

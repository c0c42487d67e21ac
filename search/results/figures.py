"""What one trial is known by, as one value that stores itself in, and loads itself from, the trial's attributes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Self

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

_HIDDEN = {"hidden": True}
"""For what only this program reads: the dashboard shows users' attributes, on one long line each, but not Optuna's."""
_PREFIX = "prune_search:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A trial's figures, as far as it has come; what is not known yet is None or empty."""

    mflops: float | None = None
    params: int | None = None
    mflops_removed: float | None = None
    """Share of the dense network's operations that pruning removed."""
    params_removed: float | None = None
    hash: str | None = None
    """Equal for trials that end in the same network (`search.trial.run.trial_hash`)."""
    same_as: int | None = None
    """The trial whose network this one shares, because the plan and the training are equal."""
    latency_ms: float | None = None
    """For one batch on the machine that ran the trial."""
    accuracy_before: float | None = None
    """After pruning, before retraining, on the first images of the holdout (`epoch_eval_images` of the study file)."""
    accuracy: float | None = None
    """On the holdout."""
    predicted: float | None = None
    """The accuracy it is predicted to reach once trained, in a study with a predictor."""
    predicted_std: float | None = None
    """Its uncertainty, as a standard deviation."""
    score: float | None = None
    """By that accuracy, if there is one."""
    fitness: float | None = None
    """What the best trial has most of: the score, but in a study of sizes."""
    size_bytes: int | None = None
    """Of the file that is handed in."""
    nonzero_bytes: int | None = None
    """Of the parameters that are not zero, at 32 bits each."""
    wall_seconds: float = 0.0
    """Spent on it, over all its runs."""
    cpu_seconds: float = 0.0
    """The same of all cores together (`search.cost.Cost`)."""
    worker: str = ""
    """The process that finished it."""
    threads: int | None = None
    """Torch's, in that process."""
    skipped: bool = False
    """Did its plan break a constraint?"""
    reason: str = ""
    """Why it was stopped or skipped, or has failed."""
    widths: dict[str, int] = field(default_factory=dict, metadata=_HIDDEN)
    """Group of channels -> how many stay; empty before the trial is planned."""
    curve: tuple[float, ...] = field(default=(), metadata=_HIDDEN)
    """Accuracy on the images of `accuracy_before` after each epoch so far, at the resolution that it trained at."""
    cost: tuple[float, ...] = field(default=(), metadata=_HIDDEN)
    """Core-seconds until its untrained evaluation, and after each epoch of `curve`."""

    def store(self, storage: BaseStorage, trial_id: int) -> None:
        """Write what is known into a running trial; what is not stays as it was."""
        for one in dataclasses.fields(Figures):
            value = getattr(self, one.name)
            if value == one.default or value == {}:
                continue
            if one.metadata:
                storage.set_trial_system_attr(trial_id, _PREFIX + one.name, value)
            else:
                storage.set_trial_user_attr(trial_id, one.name, value)

    @classmethod
    def load(cls, trial: FrozenTrial) -> Self:
        """What was stored in a trial."""
        return cls(**figures_in(trial))


def figures_in(trial: FrozenTrial) -> dict[str, Any]:
    """Name -> value, for the figures that a trial has."""
    found: dict[str, Any] = {}
    for one in dataclasses.fields(Figures):
        attrs, name = (trial.system_attrs, _PREFIX + one.name) if one.metadata else (trial.user_attrs, one.name)
        if name in attrs:
            found[one.name] = tuple(attrs[name]) if isinstance(attrs[name], list) else attrs[name]
    return found

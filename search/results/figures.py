"""The figures of one trial, as one value that is stored in and loaded from the trial's attributes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Self

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

_HIDDEN = {"hidden": True}
"""Marks fields that only this program reads. The dashboard shows user attributes, one long line each, but no system
attributes."""
_PREFIX = "prune_search:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A trial's figures so far; those not known yet are None or empty."""

    mflops: float | None = None
    params: int | None = None
    mflops_removed: float | None = None
    """Share of the dense network's operations that pruning removed."""
    params_removed: float | None = None
    hash: str | None = None
    """Equal for trials that produce the same network (`search.trial.run.trial_hash`)."""
    same_as: int | None = None
    """The trial whose network this one shares, because the plan and the training are equal."""
    latency_ms: float | None = None
    """The latency of one batch on the machine that ran the trial."""
    accuracy_before: float | None = None
    """After pruning, before retraining, on the first images of the holdout (`epoch_eval_images` of the study file)."""
    accuracy: float | None = None
    """The accuracy on the holdout."""
    predicted: float | None = None
    """The accuracy that the network is predicted to reach once trained, in a study with a predictor."""
    predicted_std: float | None = None
    """The standard deviation of `predicted`."""
    score: float | None = None
    """From `predicted` if there is one, else from `accuracy`."""
    fitness: float | None = None
    """Highest for the best trial: the score, or in a study of masks the negative of `nonzero_bytes`."""
    own_goal: bool = False
    """Has the study a goal of its own, so that the course's score says nothing (`StudySpec.graded_by`)?"""
    size_bytes: int | None = None
    """The size of the network's file."""
    nonzero_bytes: int | None = None
    """The size of the parameters that are not zero, at 32 bits each."""
    wall_seconds: float = 0.0
    """Wall-clock time over all runs of the trial."""
    cpu_seconds: float = 0.0
    """Processor time of all cores over all runs (`search.cost.Cost`)."""
    worker: str = ""
    """The process that finished the trial."""
    skipped: bool = False
    """Did its plan break a constraint?"""
    reason: str = ""
    """Why the trial was stopped or skipped, or failed."""
    widths: dict[str, int] = field(default_factory=dict, metadata=_HIDDEN)
    """Group of channels -> how many stay; empty before the trial is planned."""
    curve: tuple[float, ...] = field(default=(), metadata=_HIDDEN)
    """Accuracy after each epoch so far, on the images of `accuracy_before`, at the epoch's training resolution."""
    cost: tuple[float, ...] = field(default=(), metadata=_HIDDEN)
    """Core-seconds spent until the untrained evaluation, then until the end of each epoch of `curve`."""

    def store(self, storage: BaseStorage, trial_id: int) -> None:
        """Write the known figures into a running trial; the others stay unchanged."""
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
        """Load the figures stored in a trial."""
        return cls(**figures_in(trial))


def figures_in(trial: FrozenTrial) -> dict[str, Any]:
    """Name -> value, for the figures stored in a trial."""
    found: dict[str, Any] = {}
    for one in dataclasses.fields(Figures):
        attrs, name = (trial.system_attrs, _PREFIX + one.name) if one.metadata else (trial.user_attrs, one.name)
        if name in attrs:
            found[one.name] = tuple(attrs[name]) if isinstance(attrs[name], list) else attrs[name]
    return found

"""Early-stopping rules by name. Only this file uses Optuna's "prune" words: elsewhere, a trial is stopped."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import Trial, TrialState

from search.study.spec import StudySpec

ENDED_EARLY = TrialState.PRUNED
"""Optuna's state for trials that were stopped or skipped; TPE still learns from them."""


class Stopped(Exception):
    """The trial is not worth another epoch."""


def make_rule(spec: StudySpec) -> BasePruner:
    """The stopping rule that a study file names."""
    first = max(1, spec.early_stopping.warmup_epochs)
    if spec.early_stopping.name == "asha":
        return SuccessiveHalvingPruner(min_resource=first)
    if spec.early_stopping.name == "median":
        return MedianPruner(n_warmup_steps=spec.early_stopping.warmup_epochs)
    if spec.early_stopping.name == "hyperband":
        return HyperbandPruner(min_resource=first, max_resource=max(first, spec.total_epochs))
    return NopPruner()


def report_curve(trial: Trial, spec: StudySpec, values: Sequence[float]) -> None:
    """Report the trial's value after each epoch so far to Optuna, for its dashboard and the stopping rule.

    Optuna accepts no such values for a study with several objectives, so nothing is reported for one.
    """
    if len(spec.objectives) > 1:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns about epochs reported before, and ignores them
        for epoch, value in enumerate(values, 1):
            trial.report(value, epoch)


def stop_if_hopeless(trial: Trial, spec: StudySpec, epoch: int) -> None:
    """Raise Stopped if the rule says so after `epoch` (from 1), whose value has been reported."""
    if spec.early_stopping.name != "none" and epoch < spec.total_epochs and trial.should_prune():
        raise Stopped(f"{spec.early_stopping.name} after epoch {epoch} of {spec.total_epochs}")

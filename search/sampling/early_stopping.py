"""Early stopping of trials, by name. The only home of Optuna's "prune" words: here, a trial is stopped."""

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
    """Tell Optuna, for its dashboard and the stopping rule, what the trial was worth after each epoch so far.

    Of a study with several objectives Optuna takes no such values, so nothing is told.
    """
    if len(spec.objectives) > 1:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of epochs that were told before, which it then passes over
        for epoch, value in enumerate(values, 1):
            trial.report(value, epoch)


def stop_if_hopeless(trial: Trial, spec: StudySpec, epoch: int) -> None:
    """Ask the rule about the trial after `epoch` (from 1), whose value it has been told. Raises Stopped."""
    if spec.early_stopping.name != "none" and epoch < spec.total_epochs and trial.should_prune():
        raise Stopped(f"{spec.early_stopping.name} after epoch {epoch} of {spec.total_epochs}")

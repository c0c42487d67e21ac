"""Early stopping of trials, by name. The only home of Optuna's "prune" words: here, a trial is stopped."""

from __future__ import annotations

from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import Trial, TrialState

from search.study_file import StudySpec

ENDED_EARLY = TrialState.PRUNED
"""Optuna's state for trials that were stopped or skipped; TPE still learns from them."""


class Stopped(Exception):
    """The trial is not worth another epoch."""


def make_rule(spec: StudySpec) -> BasePruner:
    """The stopping rule that a study file names."""
    first = max(1, spec.stopping.warmup_epochs)
    if spec.stopping.name == "asha":
        return SuccessiveHalvingPruner(min_resource=first)
    if spec.stopping.name == "median":
        return MedianPruner(n_warmup_steps=spec.stopping.warmup_epochs)
    if spec.stopping.name == "hyperband":
        return HyperbandPruner(min_resource=first, max_resource=max(first, spec.total_epochs))
    return NopPruner()


def stop_if_hopeless(trial: Trial, spec: StudySpec, epoch: int, value: float) -> None:
    """Tell the rule what the trial would be worth after `epoch` (from 1). Raises Stopped."""
    if spec.stopping.name == "none":
        return
    trial.report(value, epoch)
    if epoch < spec.total_epochs and trial.should_prune():
        raise Stopped(f"{spec.stopping.name} after epoch {epoch} of {spec.total_epochs}")

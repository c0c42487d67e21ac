"""Records: trials as plain values, from which tables, figures and command-line output are made."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from search.results.ending import ending
from search.results.figures import Figures, figures_in
from search.sampling.early_stopping import ENDED_EARLY
from search.study.constraints import BYTES_PER_PARAM
from search.study.score import masked

STATES = ("done", "stopped", "skipped", "failed", "running", "waiting")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record(Figures):
    """One trial, finished or not."""

    number: int
    state: str
    """One of STATES."""
    sampled: dict[str, Any]
    """Parameter name -> value."""
    feasible: bool = True
    """Does it meet the study's constraints?"""
    constraints: dict[str, float] = field(default_factory=dict)
    """Constraint -> by how much it is broken (0 or less: it is met), for those that were checked."""

    @property
    def ended(self) -> bool:
        """Will nothing change about it any more?"""
        return self.state not in ("running", "waiting")

    @property
    def expected(self) -> float | None:
        """The accuracy from which the score is computed."""
        return self.accuracy if self.predicted is None else self.predicted


def record(trial: FrozenTrial) -> Record:
    """The record of one of Optuna's trials."""
    figures = figures_in(trial)
    return Record(
        number=trial.number,
        state=_state(trial, skipped=figures.get("skipped", False)),
        sampled=dict(trial.params),
        feasible=all(excess <= 0 for excess in trial.constraints.values()),
        constraints=trial.constraints,
        **figures,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """The dense network that a study prunes."""

    mflops: float
    params: int
    accuracy: float | None
    """The accuracy on the holdout, which may have been among its training images."""
    classes: int
    widths: dict[str, int]
    """Group of channels -> its number of channels."""
    resolution: int = 224
    """Pixels a side of the images for which operations are counted."""
    class_names: list[str] = field(default_factory=list)
    """Output -> name of the class; a study begun by an earlier version has none."""
    train_images: int = 0
    """How many images there are to train on; 0: begun by an earlier version."""


def records(study: Study) -> list[Record]:
    """All trials of a study, by number."""
    return [record(trial) for trial in study.get_trials(deepcopy=False)]


def _state(trial: FrozenTrial, *, skipped: bool) -> str:
    if trial.state == ENDED_EARLY:
        return "skipped" if skipped else "stopped"
    names = {TrialState.COMPLETE: "done", TrialState.FAIL: "failed", TrialState.RUNNING: "running"}
    return names.get(trial.state, "waiting")


def finished(found: Sequence[Record]) -> list[Record]:
    """The trials that were measured in full."""
    return [r for r in found if r.state == "done" and r.score is not None]


def best(found: Sequence[Record]) -> Record | None:
    """The finished trial of highest fitness that meets the constraints; of equals, the first."""
    candidates = [r for r in finished(found) if r.feasible]
    return max(candidates, key=lambda r: (r.fitness, -r.number), default=None)


def pareto(found: Sequence[Record], size: str = "mflops") -> list[Record]:
    """The finished trials that no other beats in both size and expected accuracy, by rising size.

    `size`: the field to use as size, mflops or nonzero_bytes.
    """
    front: list[Record] = []
    ordered = sorted(finished(found), key=lambda r: (getattr(r, size) or 0.0, -(r.expected or 0.0), r.number))
    for candidate in ordered:
        if not front or (candidate.expected or 0.0) > (front[-1].expected or 0.0):
            front.append(candidate)
    return front


def summary(found: Sequence[Record]) -> dict[str, Any]:
    """The study as one JSON-ready value: `trials` by state, `best`, `wall_seconds`."""
    top = best(found)
    keys = ("number", "score", "mflops", "accuracy", "params", "mflops_removed", "params_removed", "latency_ms",
            "nonzero_bytes")  # fmt: skip
    return {
        "trials": {state: sum(r.state == state for r in found) for state in STATES},
        "best": {key: getattr(top, key) for key in keys} if top else None,
        "wall_seconds": round(sum(r.wall_seconds for r in found), 3),
    }


def headline(found: Sequence[Record]) -> str:
    """The study in a sentence."""
    overview, top = summary(found), best(found)
    trials = ", ".join(f"{count} {state}" for state, count in overview["trials"].items() if count)
    text = f"Trials: {trials or 'none'}; {overview['wall_seconds']:,.0f} s of work."
    if top is None:
        without = ending(found)
        return f"{text} {without.text}" if without else text
    score = f"score {top.score:.2f}, " if not top.own_goal else ""
    return (
        f"{text} Best: trial {top.number}, {score}{top.mflops:.1f} MFLOPs, "
        f"{100 * (top.accuracy or 0.0):.2f} % of the holdout{', ' + sparse if (sparse := _sparse(top)) else ''}"
        f"{', predicted to reach ' + predicted_text(top) if top.predicted is not None else ''}."
    )


def predicted_text(r: Record) -> str:
    """The predicted accuracy with its standard deviation, as text."""
    return f"{100 * (r.predicted or 0.0):.1f} ± {100 * (r.predicted_std or 0.0):.1f} %"


def _sparse(r: Record) -> str:
    """The nonzero part of a masked network, as text; empty for a network without masks."""
    if r.nonzero_bytes is None or not r.params or not masked(r.nonzero_bytes // BYTES_PER_PARAM, r.params):
        return ""
    return f"{r.nonzero_bytes / 1e6:.2f} MB not zero ({r.nonzero_bytes / BYTES_PER_PARAM / r.params:.1%})"


def describe(done: Record, *, is_best: bool = False) -> str:
    """A finished trial in one line."""
    parts = [f"trial {done.number:3}  {done.state:7}"]
    if done.mflops is not None:
        parts.append(f"{done.mflops:6.1f} MFLOPs ({-(done.mflops_removed or 0):.1%})")
    if done.accuracy is not None:
        parts.append(f"{done.accuracy:6.2%} of the holdout")
    if done.predicted is not None:
        parts.append(f"predicted to reach {predicted_text(done)}")
    if done.score is not None and not done.own_goal:
        parts.append(f"score {done.score:6.2f}")
    if sparse := _sparse(done):
        parts.append(sparse)
    if done.latency_ms is not None:
        parts.append(f"{done.latency_ms:.1f} ms")
    parts.append(f"{done.wall_seconds:.0f} s")
    if done.same_as is not None:
        parts.append(f"same network as trial {done.same_as}")
    if done.reason:
        parts.append(done.reason)
    if is_best:
        parts.append("<- best so far")
    return "  ".join(parts)


def importances(study: Study) -> dict[str, float]:
    """Parameter -> the share of the variation in fitness that it explains (PED-ANOVA); empty with too few trials."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    names = set.intersection(*(set(trial.params) for trial in done)) if done else set()
    varied = [name for name in sorted(names) if len({trial.params[name] for trial in done}) > 1]
    if len(done) < 4 or not varied or len({_fitness(trial) for trial in done}) < 2:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PED-ANOVA ranks by low targets, hence the minus below; it warns anyway
        return optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
            params=varied,
            target=lambda trial: -_fitness(trial),
        )


def _fitness(trial: FrozenTrial) -> float:
    return Figures.load(trial).fitness or 0.0

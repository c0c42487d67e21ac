"""Optuna's samplers by name, used so that a rerun draws the same with any number of workers.

Optuna's samplers learn from the trials that are finished when they are asked, which depends on timing if there are
several workers. They also carry a random generator through the process. Here a draw is a function of the seed, the
trial's number n and the trials before it: the results of those up to n - max_concurrent, and the parameters of the
later ones, finished or not. So no worker waits for the max_concurrent - 1 trials before its own, and nothing depends on
which worker was faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from pruner.system.seeds import mix
from search.sampling.recipe import grid, suggest
from search.study.score import DIRECTIONS
from search.study.spec import StudySpec

_NO_RESULTS = ("random", "grid")
_MEMORY = {"tpe": 1000, "gp": 200}
"""How many finished trials a sampler learns from, at most: the best tenth and the latest (see `remembered`).

Otherwise the cost of a draw would grow with the number of trials, for the Gaussian process with its cube
(tests/benchmarks/bench_ask.py).
"""


@dataclass(frozen=True, slots=True)
class Draw:
    """A trial's sampled parameters, as Optuna stores them."""

    params: dict[str, Any]
    distributions: dict[str, BaseDistribution]
    system_attrs: dict[str, Any]
    """The sampler's own notes on the trial."""


def budget(spec: StudySpec) -> int | None:
    """The study's total number of trials; None: as many as its time allows."""
    size = len(grid(spec)) if spec.sampler.name == "grid" else None
    return min((n for n in (spec.trials, size) if n is not None), default=None)


def draw(spec: StudySpec, number: int, trials: Sequence[FrozenTrial], fixed: Mapping[str, Any] | None = None) -> Draw:
    """Sample the parameters of trial `number`. `trials`: the study's, by number; `fixed`: parameters that are given."""
    if spec.sampler.name == "grid":
        points = grid(spec)
        return _ask(spec, RandomSampler(), [], {**points[number % len(points)], **(fixed or {})})
    seen = remembered(spec, as_seen_by(spec, number, trials))
    return _ask(spec, _by_name(spec, mix(spec.seed, number) % 2**32), seen, dict(fixed or {}))


def results_needed(spec: StudySpec, number: int) -> int:
    """How many trials, from number 0 on, must be finished before trial `number` can be drawn."""
    if spec.sampler.name in _NO_RESULTS or spec.sampler.max_concurrent == 0:
        return 0
    known = max(0, number - spec.sampler.max_concurrent + 1)
    return known if known >= spec.sampler.n_startup_trials else 0  # until then the draws are random


def as_seen_by(spec: StudySpec, number: int, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials before `number`, the last `max_concurrent` of them as if they were still running."""
    max_concurrent = spec.sampler.max_concurrent
    seen = []
    for trial in trials:
        if trial.number >= number or trial.state == TrialState.WAITING:
            continue
        if trial.state.is_finished() and trial.number > number - max_concurrent:
            trial = create_trial(
                state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions,
            )  # fmt: skip
        seen.append(trial)
    return seen


def remembered(spec: StudySpec, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """All unfinished trials, and as many finished ones as the sampler can use in reasonable time."""
    most = _MEMORY.get(spec.sampler.name)
    finished = [trial for trial in trials if trial.state.is_finished()]
    if most is None or len(finished) <= most:
        return list(trials)
    kept = {trial.number for trial in finished[-(most - most // 10) :]}
    share = most // 10 // len(spec.objectives)
    for place, name in enumerate(spec.objectives):
        sign = -1.0 if DIRECTIONS[name] == "maximize" else 1.0
        older = [t for t in finished if t.number not in kept and t.values is not None]
        older.sort(key=lambda t: (sign * t.values[place], t.number))
        kept |= {trial.number for trial in older[:share]}
    return [trial for trial in trials if trial.number in kept or not trial.state.is_finished()]


def _ask(spec: StudySpec, sampler: BaseSampler, trials: Sequence[FrozenTrial], fixed: dict[str, Any]) -> Draw:
    """Ask one of Optuna's samplers in an in-memory study that holds just these trials."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=[DIRECTIONS[name] for name in spec.objectives], sampler=sampler)
    study.add_trials(trials)
    if fixed:
        study.enqueue_trial(fixed)
    trial = study.ask()
    suggest(trial, spec)
    drawn = study.get_trials(deepcopy=False)[-1]
    notes = {key: value for key, value in drawn.system_attrs.items() if key.startswith("NSGAII")}
    return Draw(dict(drawn.params), dict(drawn.distributions), notes)


def _by_name(spec: StudySpec, seed: int) -> BaseSampler:
    startup = spec.sampler.n_startup_trials
    if spec.sampler.name == "gp":
        return GPSampler(seed=seed, n_startup_trials=startup)
    if spec.sampler.name == "random":
        return RandomSampler(seed=seed)
    if spec.sampler.name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=max(2, startup))
    return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True)

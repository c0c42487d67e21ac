"""Which sampler chooses the parameters of a trial: Optuna's by name, seeded so that a study can be interrupted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from pruner.seeds import mix
from search.space import grid
from search.study_file import StudySpec


def make_sampler(spec: StudySpec) -> BaseSampler:
    """The sampler that a study file names."""
    return Grid(grid(spec.space)) if spec.sampler.name == "grid" else Reseeded(spec)


def budget(spec: StudySpec) -> int:
    """How many trials the study has in all."""
    size = len(grid(spec.space)) if spec.sampler.name == "grid" else None
    return min(n for n in (spec.trials, size) if n is not None)


def _by_name(spec: StudySpec, seed: int) -> BaseSampler:
    startup = spec.sampler.startup_trials
    if spec.sampler.name == "gp":
        return GPSampler(seed=seed, n_startup_trials=startup)
    if spec.sampler.name == "random":
        return RandomSampler(seed=seed)
    if spec.sampler.name == "nsga2":
        return NSGAIISampler(seed=seed, population_size=max(2, startup))
    return TPESampler(seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True)


class Reseeded(BaseSampler):
    """An Optuna sampler whose draws for trial n follow from the seed, n and the trials so far, and nothing else.

    Optuna's samplers carry a generator through the process, which would begin anew whenever a study is continued:
    the same draws again. So each trial gets a sampler of its own.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._number = -1
        self._sampler: BaseSampler = RandomSampler()

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if trial.number != self._number:
            self._number = trial.number
            self._sampler = _by_name(self._spec, mix(self._spec.seed, trial.number) % 2**32)
        return self._sampler

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._of(trial).before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._of(trial).after_trial(study, trial, state, values)


class Grid(BaseSampler):
    """Trial n takes point n: every combination once, in the order of the study file.

    Optuna's own shuffles the points and calls `study.stop`, which only works inside `study.optimize`.
    """

    def __init__(self, points: list[dict[str, Any]]) -> None:
        self._points = points

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._points[trial.number % len(self._points)][param_name]

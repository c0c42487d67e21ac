"""What is sampled is a function of the seed, the trial's number and the trials before it: who was faster is no part."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState, create_trial

from search.sampling.samplers import as_seen_by, draw, remembered, results_needed
from search.study.spec import StudySpec

SPACE = {"importance": ["l1", "l2"], "learning_rate": {"low": 0.001, "high": 0.1, "log": True}}
SAMPLERS = ["tpe", pytest.param("gp", marks=pytest.mark.slow), "nsga2", "random"]


def spec(name: str = "tpe", **changes: Any) -> StudySpec:
    values: dict[str, Any] = {
        "name": "s", "trials": 100, "space": {**SPACE, "pruning_ratio": {"stage4": {"low": 0.0, "high": 0.8}}},
        "sampler": {"name": name, "n_startup_trials": 4, "max_concurrent": 3},
    }  # fmt: skip
    return StudySpec.model_validate({**values, **changes})


def trials(of: StudySpec, count: int) -> list[FrozenTrial]:
    """A study's first trials: drawn as they would be, and worth more the nearer their cut is to 0.5."""
    study = optuna.create_study(direction="maximize")
    for number in range(count):
        drawn = draw(of, number, study.trials)
        value = -abs(drawn.params["pruning_ratio.stage4"] - 0.5)
        study.add_trial(
            create_trial(
                params=drawn.params, distributions=drawn.distributions, value=value, system_attrs=drawn.system_attrs
            )
        )
    return study.trials


def unfinished(trial: FrozenTrial) -> FrozenTrial:
    changed = create_trial(state=TrialState.RUNNING, params=trial.params, distributions=trial.distributions)
    changed.number = trial.number
    return changed


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_draw_does_not_depend_on_who_within_the_lag_is_finished(sampler: str) -> None:
    study = spec(sampler)
    found = trials(study, 12)
    for number in (3, 12):
        before = found[:number]
        same = draw(study, number, before).params
        for running in ({number - 1}, {number - 2}, {number - 1, number - 2}):
            part = [unfinished(trial) if trial.number in running else trial for trial in before]
            assert draw(study, number, part).params == same
        later = [*before, *trials(spec("random"), 15)[number:]]
        assert draw(study, number, later).params == same


def test_results_older_than_the_lag_do_matter() -> None:
    study = spec("tpe")
    found = trials(study, 12)
    better = [*found]
    better[5] = create_trial(params=found[5].params, distributions=found[5].distributions, value=1.0)
    better[5].number = 5
    assert draw(study, 12, found).params != draw(study, 12, better).params


@given(st.integers(0, 40), st.integers(0, 8), st.sampled_from(["tpe", "gp", "nsga2", "random", "grid"]))
def test_a_worker_waits_for_exactly_the_results_that_a_draw_uses(number: int, max_concurrent: int, name: str) -> None:
    more = {"space": {"importance": ["l1", "l2"]}} if name == "grid" else {}
    study = spec(name, sampler={"name": name, "n_startup_trials": 4, "max_concurrent": max_concurrent}, **more)
    needed = results_needed(study, number)
    assert 0 <= needed <= max(0, number - max_concurrent + 1)
    if max_concurrent == 0 or name in ("random", "grid"):
        assert needed == 0
    elif number - max_concurrent + 1 >= 4:
        assert needed == number - max_concurrent + 1


def test_a_lag_of_0_sees_every_result_there_is() -> None:
    found = trials(spec("random"), 6)
    eager = spec("tpe", sampler={"name": "tpe", "max_concurrent": 0})
    assert [trial.state.is_finished() for trial in as_seen_by(eager, 6, found)] == [True] * 6
    assert [trial.state.is_finished() for trial in as_seen_by(spec(), 6, found)] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_differ_between_trials_and_seeds_and_keep_what_is_fixed(sampler: str) -> None:
    found = trials(spec(sampler), 8)
    assert len({tuple(trial.params.values()) for trial in found}) == 8
    other = trials(spec(sampler, seed=1), 8)
    assert found[0].params != other[0].params
    assert draw(spec(sampler), 8, found, {"pruning_ratio.stage4": 0.25}).params["pruning_ratio.stage4"] == 0.25


def test_a_sampler_that_learns_finds_the_best_cut_sooner_than_chance() -> None:
    late = {
        name: [trial.params["pruning_ratio.stage4"] for trial in trials(spec(name), 40)[20:]]
        for name in ("tpe", "random")
    }
    off = {name: sum(abs(cut - 0.5) for cut in cuts) / len(cuts) for name, cuts in late.items()}
    assert off["tpe"] < 0.7 * off["random"]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1500))
def test_memory_is_bounded_and_keeps_the_best_the_latest_and_all_that_run(count: int) -> None:
    distributions = {"pruning_ratio.stage4": optuna.distributions.FloatDistribution(0.0, 0.8)}
    study = []
    for number in range(count):
        running = number % 400 == 7
        trial = create_trial(
            state=TrialState.RUNNING if running else TrialState.COMPLETE, value=None if running else number * 37 % 1499,
            params={"pruning_ratio.stage4": 0.5}, distributions=distributions,
        )  # fmt: skip
        trial.number = number
        study.append(trial)
    kept = remembered(spec(), study)
    finished = [trial for trial in study if trial.state.is_finished()]
    numbers = {trial.number for trial in kept}
    assert sum(trial.state.is_finished() for trial in kept) == min(1000, len(finished))
    assert {trial.number for trial in study if not trial.state.is_finished()} <= numbers
    assert {trial.number for trial in finished[-900:]} <= numbers
    if finished:
        assert max(finished, key=lambda trial: trial.value or 0.0).number in numbers
    assert [trial.number for trial in kept] == sorted(numbers)

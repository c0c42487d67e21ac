"""Fix the problems that `search.integrity.check` finds."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from pruner.channels.plan import ChannelPlan
from pruner.measurement.latency import Latency
from search.filesystem import locked
from search.integrity.check import Problem
from search.results.figures import Figures
from search.sampling.recipe import recipe
from search.storage.trial_folder import TrialFolder
from search.trial.context import Context
from search.trial.run import run_trial
from search.workers.setup import Setup


def fix(problems: Sequence[Problem], ready: Setup) -> list[str]:
    """Carry out the problems' remedies; returns a line for each problem that could not be fixed."""
    left = []
    for problem in sorted(problems, key=lambda problem: problem.retrain is not None):  # may need the others
        if problem.retrain is not None and problem.trial is not None:
            with ExitStack() as held:
                folder = ready.context.folder.trial(problem.trial)
                held.enter_context(locked(folder.lock))
                # A trial with a measurement counts as finished, so the measurement is deleted, too.
                for path in (*problem.retrain, folder.path / "measurement.json"):
                    path.unlink(missing_ok=True)
                left += _make_again(ready.store.study.trials[problem.trial], ready.context, folder)
        elif problem.fix is not None:
            problem.fix()
        else:
            left.append(problem.what if problem.trial is None else f"trial {problem.trial}: {problem.what}")
    return left


def _make_again(trial: FrozenTrial, context: Context, folder: TrialFolder) -> list[str]:
    """Run a finished trial again: the same seed gives the same network, and so the same figures."""
    again = run_trial(recipe(trial.params, context.spec), context, folder, _Silent(f"trial {trial.number}")).measurement
    before = Figures.load(trial).accuracy
    assert before is not None  # it is finished
    if again.accuracy != before:
        return [
            f"trial {trial.number}: run again, it reaches {again.accuracy:.2%} on the holdout, but the database says "
            f"{before:.2%} and keeps that for a finished trial (another machine, or another version of torch?)"
        ]
    return []


@dataclass(frozen=True, slots=True)
class _Silent:
    """Ignores the progress of a trial whose result the database already has."""

    title: str

    def planned(self, plan: ChannelPlan, hash: str) -> None:
        return None

    def timed(self, latency: Latency) -> None:
        pass

    def images(self, count: int) -> None:
        pass

    def learned(self, before: float | None, curve: Sequence[float], cost: Sequence[float]) -> None:
        pass

    def epoch(self, number: int) -> None:
        pass

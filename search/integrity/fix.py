"""Fixing a study: what `search.integrity.check` found and said it could do."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from optuna.trial import FrozenTrial

from pruner.channels.plan import ChannelPlan
from pruner.measurement.latency import Latency
from search.integrity.check import Problem
from search.results.figures import Figures
from search.sampling.recipe import recipe
from search.storage.filesystem import locked
from search.storage.trial_folder import TrialFolder
from search.trial.context import Context
from search.trial.run import run_trial
from search.workers.setup import Setup


def fix(problems: Sequence[Problem], ready: Setup) -> list[str]:
    """Do what the problems' remedies say; returns a line for each that could not be fixed."""
    left = []
    for problem in sorted(problems, key=lambda problem: problem.retrain is not None):  # it needs what the rest fixes
        if problem.retrain is not None and problem.trial is not None:
            with ExitStack() as held:
                folder = ready.context.folder.trial(problem.trial)
                held.enter_context(locked(folder.lock))
                # A trial with a measurement counts as finished, so that goes, too.
                for path in (*problem.retrain, folder.path / "measurement.json"):
                    path.unlink(missing_ok=True)
                left += _make_again(ready.store.study.trials[problem.trial], ready.context, folder)
        elif problem.fix is not None:
            problem.fix()
        else:
            left.append(problem.what if problem.trial is None else f"trial {problem.trial}: {problem.what}")
    return left


def _make_again(trial: FrozenTrial, context: Context, folder: TrialFolder) -> list[str]:
    """Run a finished trial once more: the same seed and threads give the same network, and so the same figures."""
    torch.set_num_threads(Figures.load(trial).threads or torch.get_num_threads())
    again = run_trial(recipe(trial.params, context.spec), context, folder, _Silent(f"trial {trial.number}")).measurement
    before = Figures.load(trial).accuracy
    assert before is not None  # it is finished
    if again.accuracy != before:
        return [
            f"trial {trial.number}: made again, it has {again.accuracy:.2%} of the holdout; the database, which "
            f"finished trials are not changed in, says {before:.2%} (another machine, or another version of torch?)"
        ]
    return []


@dataclass(frozen=True, slots=True)
class _Silent:
    """Looks on at a trial whose end the database knows already."""

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

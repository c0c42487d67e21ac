"""One process that runs trials until the study's budget is spent."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from optuna.study import Study
from optuna.trial import Trial, TrialState

from pruner.channels import ChannelPlan
from pruner.errors import Diverged, InputError
from search.bench import Bench
from search.folder import TrialFolder, locked
from search.results import best, describe, record, records
from search.sampling import budget
from search.space import suggest
from search.stopping import ENDED_EARLY, Stopped, stop_if_hopeless
from search.study_file import StudySpec
from search.trial import Outcome, run_trial

_FAILURES_IN_A_ROW = 3


class Skipped(Exception):
    """The plan breaks a limit: no training."""


def work(study: Study, bench: Bench) -> None:
    """Run trials, abandoned ones first, until there are as many as the study file asks for.

    A trial whose training fails is recorded as failed and the study goes on; what concerns every trial (a full disk,
    a missing file) is raised, and the trial is left to be continued.
    """
    total = budget(bench.spec)
    failures = 0
    with bench.progress.task("study", total, unit="trials", done=_ended(study)) as bar:
        while failures < _FAILURES_IN_A_ROW:
            with _next_trial(study, bench, total) as taken:
                if taken is None:
                    return
                _run(study, taken, bench)
            bar.advance()
            found = records(study)
            done = found[taken.number]
            failures = failures + 1 if done.state == "failed" else 0
            bench.progress.line(describe(done, is_best=best(found) == done))
    raise InputError(f"{failures} trials in a row have failed, the last because: {done.reason}")


def _ended(study: Study) -> int:
    return sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))


@contextmanager
def _next_trial(study: Study, bench: Bench, total: int) -> Iterator[Trial | None]:
    """A trial to work on, locked: one that a dead process left behind, or a new one; None when the budget is spent."""
    with ExitStack() as held:
        with locked(bench.folder.lock):  # one process at a time, so that none begins a trial too many
            trial = _take(study, bench, total, held)
        yield trial


def _take(study: Study, bench: Bench, total: int, held: ExitStack) -> Trial | None:
    for left in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if held.enter_context(locked(bench.folder.trial(left.number).lock, wait=False)):
            return Trial(study, left._trial_id)
    if len(study.get_trials(deepcopy=False)) >= total:
        return None
    trial = study.ask()
    held.enter_context(locked(bench.folder.trial(trial.number).lock))
    return trial


def _run(study: Study, trial: Trial, bench: Bench) -> None:
    """Run one trial and tell Optuna how it ended."""
    folder = bench.folder.trial(trial.number)
    watch = _Watch(study, trial, bench)
    try:
        outcome = run_trial(suggest(trial, bench.spec), bench, folder, watch)
    except (Stopped, Skipped) as ended:
        folder.log(str(ended))
        trial.set_user_attr("skipped", isinstance(ended, Skipped))
        trial.set_user_attr("reason", str(ended))
        study.tell(trial, state=ENDED_EARLY)
    except (InputError, OSError):
        raise
    except (Diverged, RuntimeError, ValueError, AssertionError) as error:
        folder.log(traceback.format_exc())
        trial.set_user_attr("reason", str(error).splitlines()[0] if str(error) else type(error).__name__)
        study.tell(trial, state=TrialState.FAIL)
    else:
        values = _keep(trial, outcome, bench.spec)
        study.tell(trial, [values[name] for name in bench.spec.objectives])


def _keep(trial: Trial, outcome: Outcome, spec: StudySpec) -> dict[str, float]:
    """Write a finished trial's figures into the database; returns what it is worth by each objective."""
    measured = outcome.measurement
    score = spec.score(measured.mflops, measured.accuracy)
    trial.set_user_attr("accuracy", measured.accuracy)
    trial.set_user_attr("score", score)
    trial.set_user_attr("size_bytes", measured.size_bytes)
    trial.set_user_attr("seconds", outcome.seconds)
    if spec.limits.accuracy_at_least is not None:
        _constrain(trial, "accuracy", spec.limits.accuracy_at_least - measured.accuracy)
    return {"score": score, "accuracy": measured.accuracy, "mflops": measured.mflops, "params": measured.params}


def _constrain(trial: Trial, name: str, excess: float) -> None:
    """Tell Optuna by how much a limit is broken (0 or less: it is kept)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a continued trial: it is set already, to the same value
        trial.set_constraint(name, excess)


@dataclass(frozen=True, slots=True)
class _Watch:
    """Looks on at a trial for Optuna."""

    study: Study
    trial: Trial
    bench: Bench

    @property
    def title(self) -> str:
        return f"trial {self.trial.number}"

    def planned(self, plan: ChannelPlan, fingerprint: str) -> TrialFolder | None:
        trial, limits = self.trial, self.bench.spec.limits
        trial.set_user_attr("mflops", plan.mflops)
        trial.set_user_attr("params", plan.params)
        trial.set_user_attr("mflops_removed", plan.mflops_removed)
        trial.set_user_attr("params_removed", plan.params_removed)
        trial.set_user_attr("fingerprint", fingerprint)
        if limits.mflops_at_most is not None:
            _constrain(trial, "mflops_at_most", plan.mflops - limits.mflops_at_most)
            if plan.mflops > limits.mflops_at_most:
                raise Skipped(f"over the limit of {limits.mflops_at_most:g} MFLOPs")
        if limits.mflops_at_least is not None:
            _constrain(trial, "mflops_at_least", limits.mflops_at_least - plan.mflops)
            if plan.mflops < limits.mflops_at_least:
                raise Skipped(f"under the limit of {limits.mflops_at_least:g} MFLOPs")
        return self._twin(fingerprint)

    def epoch(self, number: int, mflops: float, holdout: float) -> None:
        spec = self.bench.spec
        value = spec.score(mflops, holdout) if spec.objectives[0] == "score" else holdout
        stop_if_hopeless(self.trial, spec, number, value)

    def _twin(self, fingerprint: str) -> TrialFolder | None:
        for other in self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if other.user_attrs.get("fingerprint") == fingerprint and other.number != self.trial.number:
                original = record(other).same_as
                self.trial.set_user_attr("same_as", other.number if original is None else original)
                return self.bench.folder.trial(other.number)
        return None

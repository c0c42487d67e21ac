"""One process that runs trials until the study's budget is spent."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TypeVar

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pruner.errors import Diverged, InputError
from search import signals
from search.cost import Cost
from search.exit_status import ExitStatus, Failed
from search.results.figures import Figures
from search.results.records import Record, best, describe, record, records
from search.sampling.early_stopping import ENDED_EARLY, Stopped
from search.sampling.recipe import recipe
from search.sampling.samplers import budget
from search.storage.artifacts import Shared
from search.storage.leases import Leases, Lost
from search.storage.studies import Store
from search.storage.trial_file import catch_up, write_trial
from search.storage.trial_folder import TrialFolder
from search.study.constraints import BYTES_PER_PARAM, excesses
from search.study.score import fitness
from search.trial.context import Context
from search.trial.run import Outcome, run_trial
from search.workers.callbacks import Skipped, TrialCallbacks, constrain
from search.workers.heartbeat import BudgetSpent, Heartbeat
from search.workers.scheduler import Nothing, Scheduler, Taken

T = TypeVar("T")

_FAILURES_IN_A_ROW = 3
_PAUSE_S = 0.5
"""Pause between two looks for a trial while other workers run the last ones."""


def work(store: Store, context: Context, shared: Shared, grace_period: float) -> str:
    """Run trials, abandoned ones first, until the budget is spent and no worker is busy; return why it ended.

    `grace_period`: seconds without a beat after which a worker on another machine is declared dead.

    A trial whose training fails is recorded as failed, and the study continues. An error that concerns every trial (a
    missing file, a disk that stays full) is raised, and the trial is left to be resumed.
    """
    database = store.database
    scheduler = database.patiently(
        lambda: Scheduler(store, context.spec, context.folder, grace_period), context.progress.line
    )
    catch_up(context.folder, database.patiently(lambda: store.study.get_trials(deepcopy=False), context.progress.line))
    with scheduler.beating() as heartbeat:
        return _Worker(store, context, shared, scheduler, heartbeat).work()


@dataclass(frozen=True, slots=True)
class _Worker:
    store: Store
    context: Context
    shared: Shared
    scheduler: Scheduler
    heartbeat: Heartbeat

    def work(self) -> str:
        failures, reason = 0, ""
        total = budget(self.context.spec) or 0
        with self.context.progress.task("study", total, unit="trials", done=_ended(self._records())) as bar:
            while failures < _FAILURES_IN_A_ROW:
                with ExitStack() as held:
                    try:
                        taken = self._take(held)
                        if not isinstance(taken, Nothing):
                            finished = self._run(taken)
                    except BudgetSpent as spent:
                        return str(spent)
                    except Lost:
                        self.context.progress.line("The trial has gone to another worker: this one was declared dead.")
                        continue
                if isinstance(taken, Nothing):
                    if not taken.wait:
                        self.context.folder.sweep()  # a trial that went to another machine may have left files here
                        return "all trials are done"
                    bar.say("waiting for other workers")
                    time.sleep(_PAUSE_S)
                    continue
                found = self._records()
                done = found[finished]
                bar.say("study")
                bar.set(_ended(found))
                failures = failures + 1 if done.state == "failed" else 0
                reason = done.reason
                self.context.progress.trial(
                    done.number, done.state, done.score, describe(done, is_best=best(found) == done)
                )
        raise Failed(f"{failures} trials in a row have failed, the last because: {reason}", ExitStatus.ALL_FAILED)

    def _records(self) -> list[Record]:
        return self._patiently(lambda: records(self.store.study))

    def _patiently(self, action: Callable[[], T]) -> T:
        return self.store.database.patiently(action, self.context.progress.line)

    def _take(self, held: ExitStack) -> Taken | Nothing:
        def attempt() -> Taken | Nothing:
            held.close()  # releases what an attempt that broke off has locked
            return self.scheduler.take(self.heartbeat, held)

        return self._patiently(attempt)

    def _run(self, taken: Taken) -> int:
        """Run one trial and tell Optuna how it ended; returns its number."""
        trial = taken.trial
        self.heartbeat.hold(trial._trial_id)
        try:
            mine = partial(self.scheduler.leases.beat, trial._trial_id)
            find = partial(self.shared.trial_folder, self.context.folder, trial, taken.lease, mine, fetch=taken.moved)
            self._run_held(taken, self._patiently(find))
        except Lost:
            self.context.folder.trial(trial.number).log("dropped: another worker has taken it")
            raise
        except BaseException:
            self._hand_back(trial)
            raise
        finally:
            self.heartbeat.hold(None)
        return trial.number

    def _run_held(self, taken: Taken, folder: TrialFolder) -> None:
        trial, spec = taken.trial, self.context.spec
        callbacks = TrialCallbacks(
            trial, self.store, self.context, self.shared, self.scheduler.leases, self.heartbeat, self._patiently
        )
        try:
            if taken.deadly:
                raise RuntimeError("its workers died one after the other without finishing an epoch (out of memory?)")
            outcome = run_trial(recipe(trial.params, spec), self.context, folder, callbacks)
        except (Stopped, Skipped) as ended:
            folder.log(str(ended))
            why = Figures(skipped=isinstance(ended, Skipped), reason=str(ended))
            self._tell(trial, ENDED_EARLY, why, folder.spent())
        except UpdateFinishedTrialError:  # another worker took it and finished it
            raise Lost from None
        except (InputError, OSError, SQLAlchemyError):
            raise
        except (Diverged, RuntimeError, ValueError, AssertionError) as error:
            folder.log(traceback.format_exc())
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self._tell(trial, TrialState.FAIL, Figures(reason=reason), folder.spent())
        else:
            self._finish(trial, outcome)

    def _finish(self, trial: Trial, outcome: Outcome) -> None:
        measured, spec = outcome.measurement, self.context.spec
        score, prediction = spec.score(measured.mflops, measured.accuracy), None
        if spec.predictor.observations:
            prediction = spec.predictor(measured.mflops, measured.accuracy)
            score = prediction.score(spec.score, measured.mflops)
        nonzero_bytes = BYTES_PER_PARAM * (measured.nonzero_params or measured.params)
        values = {
            "score": score,
            "accuracy": prediction.accuracy if prediction else measured.accuracy,
            "mflops": measured.mflops,
            "params": measured.params,
            "latency_ms": outcome.latency.median_ms,
            "nonzero_bytes": nonzero_bytes,
        }
        figures = Figures(
            accuracy=measured.accuracy,
            predicted=prediction.accuracy if prediction else None,
            predicted_std=prediction.std if prediction else None,
            score=score,
            fitness=fitness(spec.goal, values),
            own_goal=spec.graded_by is None,
            size_bytes=measured.size_bytes,
            nonzero_bytes=nonzero_bytes,
        )
        self._tell(trial, TrialState.COMPLETE, figures, outcome.cost, [values[name] for name in spec.objectives])

    def _tell(
        self, trial: Trial, state: TrialState, figures: Figures, cost: Cost, values: list[float] | None = None
    ) -> None:
        """Record in the database how a trial ended. Raises Lost if another worker has taken it."""
        storage, leases = self.store.database.storage, self.scheduler.leases
        spent = {name: round(seconds, 3) for name, seconds in asdict(cost).items()}
        figures = replace(figures, worker=leases.worker, **spent)

        def attempt() -> None:
            with signals.deferred(), self._in_turn():
                told = storage.get_trial(trial._trial_id)
                if not told.state.is_finished():
                    if not leases.beat(trial._trial_id):
                        raise Lost
                    if self.context.spec.target_score is not None:
                        self.heartbeat.check_budget(leases)
                    self._store_end(trial, state, figures, values)
                    told = storage.get_trial(trial._trial_id)
                elif Figures.load(told).worker != leases.worker:  # else the connection broke after it had been told
                    raise Lost
                leases.drop(trial._trial_id)
                write_trial(self.context.folder.trial(trial.number), told, self.heartbeat.worked)
                done = record(told)
                if done.state == "done" and done.feasible and done.score is not None:
                    leases.reached(done.score)

        self._patiently(attempt)

    def _in_turn(self) -> AbstractContextManager[None]:
        """Once the score that ends a study is reached, no other trial is told: so one at a time."""
        return nullcontext() if self.context.spec.target_score is None else self.store.alone()

    def _store_end(self, trial: Trial, state: TrialState, figures: Figures, values: list[float] | None) -> None:
        reached = figures.accuracy if figures.predicted is None else figures.predicted
        try:
            figures.store(self.store.database.storage, trial._trial_id)
            for name, excess in excesses(self.context.limits, {"accuracy": reached}).items():
                constrain(trial, name, excess)
            self.store.study.tell(trial, values, state=state, skip_if_finished=True)
        except UpdateFinishedTrialError:
            raise Lost from None

    def _hand_back(self, trial: Trial) -> None:
        """Give the trial back for another worker. If the database is away, the missing beats have the same effect."""
        leases = self.scheduler.leases
        with contextlib.suppress(Exception):
            Leases(self.store.database.another_engine(), leases.study_id, leases.worker).give_back(trial._trial_id)


def _ended(found: Sequence[Record]) -> int:
    return sum(r.ended for r in found)

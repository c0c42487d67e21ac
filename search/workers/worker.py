"""One process that runs trials until the study's budget is spent."""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from pruner.errors import Diverged, InputError
from search import signals
from search.cost import Work
from search.exit_status import ExitStatus, Failed
from search.results.records import Record, best, describe, record, records
from search.sampling.recipe import recipe
from search.sampling.samplers import budget
from search.sampling.stopping import ENDED_EARLY, Stopped
from search.storage.artifacts import Shared
from search.storage.folder import TrialFolder
from search.storage.leases import Claims, Lost
from search.storage.studies import Store
from search.storage.trial_file import catch_up, write_trial
from search.study.score import BYTES_PER_PARAM, merit
from search.trial.context import Context
from search.trial.run import Outcome, run_trial
from search.workers.callbacks import Skipped, TrialWatch, constrain
from search.workers.heartbeat import BudgetSpent, Heart
from search.workers.scheduler import Dispatch, Nothing, Taken

T = TypeVar("T")

_FAILURES_IN_A_ROW = 3
_PAUSE_S = 0.5
"""Between two looks for a trial while other workers are at the last ones."""


def work(store: Store, context: Context, shared: Shared, grace: float) -> str:
    """Run trials, abandoned ones first, until the budget is spent and nobody is at work; returns why it ended.

    `grace`: seconds without a beat after which a worker on another machine counts as dead.

    A trial whose training fails is recorded as failed and the study goes on; what concerns every trial (a missing file,
    a disk that stays full) is raised, and the trial is left to be continued.
    """
    database = store.database
    dispatch = database.patiently(lambda: Dispatch(store, context.spec, context.folder, grace), context.progress.line)
    catch_up(context.folder, database.patiently(lambda: store.study.get_trials(deepcopy=False), context.progress.line))
    with dispatch.beating() as heart:
        return _Worker(store, context, shared, dispatch, heart).work()


@dataclass(frozen=True, slots=True)
class _Worker:
    store: Store
    context: Context
    shared: Shared
    dispatch: Dispatch
    heart: Heart

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
                        self.context.progress.line("The trial has gone to another worker: this one was taken for dead.")
                        continue
                if isinstance(taken, Nothing):
                    if not taken.wait:
                        self.context.folder.sweep()  # a trial that went to another machine may have left something here
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
            held.close()  # of an attempt that broke off
            return self.dispatch.take(self.heart, held)

        return self._patiently(attempt)

    def _run(self, taken: Taken) -> int:
        """Run one trial and tell Optuna how it ended; returns its number."""
        trial = taken.trial
        self.heart.hold(trial._trial_id)
        try:
            holding = partial(self.dispatch.holding, trial._trial_id)
            find = partial(self.shared.trial_folder, self.context.folder, trial, holding, fetch=taken.moved)
            self._run_held(taken, self._patiently(find))
        except Lost:
            self.context.folder.trial(trial.number).log("dropped: another worker has taken it")
            raise
        except BaseException:
            self._hand_back(trial)
            raise
        finally:
            self.heart.hold(None)
        return trial.number

    def _run_held(self, taken: Taken, folder: TrialFolder) -> None:
        trial, spec = taken.trial, self.context.spec
        watch = TrialWatch(
            trial, self.store, self.context, self.shared, self.dispatch.claims, self.heart, self._patiently
        )
        try:
            if taken.deadly:
                raise RuntimeError("its workers died one after the other without finishing an epoch (out of memory?)")
            outcome = run_trial(recipe(trial.params, spec), self.context, folder, watch)
        except (Stopped, Skipped) as ended:
            folder.log(str(ended))
            why = {"skipped": isinstance(ended, Skipped), "reason": str(ended)}
            self._tell(trial, ENDED_EARLY, why | _rounded(folder.spent()))
        except UpdateFinishedTrialError:  # by the worker that has it now
            raise Lost from None
        except (InputError, OSError, SQLAlchemyError):
            raise
        except (Diverged, RuntimeError, ValueError, AssertionError) as error:
            folder.log(traceback.format_exc())
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            self._tell(trial, TrialState.FAIL, {"reason": reason} | _rounded(folder.spent()))
        else:
            self._finish(trial, outcome)

    def _finish(self, trial: Trial, outcome: Outcome) -> None:
        measured, spec = outcome.measurement, self.context.spec
        score, expected, foreseen = spec.score(measured.mflops, measured.accuracy), measured.accuracy, {}
        if spec.forecast.known:
            prediction = spec.forecast(measured.mflops, measured.accuracy)
            score, expected = prediction.score(spec.score, measured.mflops), prediction.accuracy
            foreseen = {"predicted": expected, "predicted_std": prediction.std}
        nonzero = BYTES_PER_PARAM * (measured.nonzero_params or measured.params)
        figures = {
            "accuracy": measured.accuracy,
            "score": score,
            "size_bytes": measured.size_bytes,
            "nonzero_bytes": nonzero,
            **_rounded(outcome.work),
            "worker": self.dispatch.worker,
            "threads": torch.get_num_threads(),
            **foreseen,
        }
        values = {
            "score": score,
            "accuracy": expected,
            "mflops": measured.mflops,
            "params": measured.params,
            "latency_ms": outcome.latency.median_ms,
            "nonzero_bytes": nonzero,
        }
        figures["merit"] = merit(spec.objectives, values)
        self._tell(trial, TrialState.COMPLETE, figures, [values[name] for name in spec.objectives])

    def _tell(
        self, trial: Trial, state: TrialState, figures: dict[str, Any], values: list[float] | None = None
    ) -> None:
        """Write how a trial ended into the database, unless it is another worker's by now."""
        study, claims, limit = self.store.study, self.dispatch.claims, self.context.spec.limits.accuracy_at_least
        tried = False

        def attempt() -> None:
            nonlocal tried
            with self.dispatch.alone():
                if study._storage.get_trial(trial._trial_id).state.is_finished():
                    if not tried:
                        raise Lost
                    return  # the database broke off after the last attempt had taken effect
                if not claims.holds(trial._trial_id):
                    raise Lost
                if self.context.spec.until_score is not None:
                    self.heart.check_budget(claims)
                tried = True
                with signals.deferred():
                    for name, value in figures.items():
                        trial.set_user_attr(name, value)
                    if state == TrialState.COMPLETE and limit is not None:
                        constrain(trial, "accuracy", limit - figures.get("predicted", figures["accuracy"]))
                    study.tell(trial, values, state=state)
                    claims.drop(trial._trial_id)
                    told = study._storage.get_trial(trial._trial_id)
                    write_trial(self.context.folder.trial(trial.number), told, self.heart.worked)
                    done = record(told)
                    if done.state == "done" and done.feasible:
                        claims.reached(figures["score"])

        self._patiently(attempt)

    def _hand_back(self, trial: Trial) -> None:
        """Leave the trial to whoever comes next. If that cannot be said now, its silence will say it."""
        claims = self.dispatch.claims
        with contextlib.suppress(Exception):
            Claims(self.store.database.another_engine(), claims.study_id, claims.worker).give_back(trial._trial_id)


def _ended(found: Sequence[Record]) -> int:
    return sum(r.state not in ("running", "waiting") for r in found)


def _rounded(work: Work) -> dict[str, float]:
    return {name: round(amount, 3) for name, amount in asdict(work).items()}

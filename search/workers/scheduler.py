"""Assign trials to workers: abandoned ones first, then waiting ones, then new ones, within the budget."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from search.filesystem import locked, place_of
from search.sampling.samplers import budget, draw, results_needed
from search.storage.folder import StudyFolder
from search.storage.leases import Lease, Leases, Lost
from search.storage.studies import Store
from search.study.spec import StudySpec
from search.workers.heartbeat import Heartbeat

_DEATHS = 5
"""A trial is deadly if this many workers in a row have died in it without finishing an epoch."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A trial that this worker has taken."""

    trial: Trial
    deadly: bool
    """It kills its workers, so it must not be tried again."""
    moved: bool
    """Its last worker was at another place, which may hold its files."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is no trial to take."""

    wait: bool
    """There may be one later: another worker may die, or must finish first. False: the budget is spent."""


class Scheduler:
    """Hands trials to one worker process. Only one of all workers at a time looks for its next trial."""

    def __init__(self, store: Store, spec: StudySpec, folder: StudyFolder, grace_period: float) -> None:
        """`grace_period`: seconds without a beat after which a worker on another machine is declared dead."""
        self._store, self._spec, self._folder = store, spec, folder
        self._study_id = store.study._study_id
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.place = place_of(folder.path, one_machine=store.database.on_one_machine)
        self.leases = Leases(store.database.engine, self._study_id, self.worker)
        self._grace = grace_period
        with self.alone():
            self.leases.create()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the study's lock."""
        with self._store.database.alone(self._study_id):
            yield

    @contextmanager
    def holding(self, trial_id: int) -> Iterator[None]:
        """Hold the study's lock, so that no worker can take the trial. Raises Lost if another worker has."""
        with self.alone():
            if not self.leases.holds(trial_id):
                raise Lost
            yield

    @contextmanager
    def beating(self) -> Iterator[Heartbeat]:
        """Show that this worker is alive for as long as the block runs."""
        engine = self._store.database.another_engine()
        heartbeat = Heartbeat(Leases(engine, self._study_id, self.worker), self._spec, self._grace)
        heartbeat.start()
        try:
            yield heartbeat
        finally:
            heartbeat.end()

    def take(self, heartbeat: Heartbeat, held: ExitStack) -> Taken | Nothing:
        """Take the next trial; its folder is locked until `held` is closed.

        Raises BudgetSpent if the time is up or the target score is reached, and database errors; safe to repeat.
        """
        with self.alone():
            heartbeat.check_budget(self.leases)
            trials = self._store.study.get_trials(deepcopy=False)
            leases = self.leases.all()
            running = [trial for trial in trials if trial.state == TrialState.RUNNING]
            for left in leases.keys() - {trial._trial_id for trial in running}:
                self.leases.drop(left)  # its worker died between its last two writes
            for trial in running:
                lease = leases.get(trial._trial_id)
                if self._is_free(trial, lease, heartbeat) and self._lock(trial.number, held):
                    return self._take_up(trial, lease, trials)
            total = budget(self._spec)
            begun = sum(trial.state != TrialState.WAITING for trial in trials)
            if total is not None and begun >= total:
                return Nothing(wait=bool(running))
            waiting = next((trial for trial in trials if trial.state == TrialState.WAITING), None)
            number = waiting.number if waiting else len(trials)
            needed = results_needed(self._spec, number)
            if any(trial.number < needed for trial in running) or not self._lock(number, held):
                return Nothing(wait=True)
            if waiting:
                self._store.database.storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
                return self._take_up(waiting, None, trials)
            return self._begin(number, trials)

    def _lock(self, number: int, held: ExitStack) -> bool:
        return held.enter_context(locked(self._folder.trial(number).lock, wait=False))

    def _is_free(self, trial: FrozenTrial, lease: Lease | None, heartbeat: Heartbeat) -> bool:
        """May its worker be dead? If it would lock the same file as this worker, the lock decides."""
        if lease is None or lease.worker in ("", self.worker) or lease.place == self.place:
            return True
        return heartbeat.observer.is_stale(trial._trial_id, lease)

    def _take_up(self, trial: FrozenTrial, lease: Lease | None, trials: list[FrozenTrial]) -> Taken:
        """Continue a trial that was begun or queued."""
        fixed = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        drawn = draw(self._spec, trial.number, trials, fixed)
        for name, distribution in drawn.distributions.items():
            if name not in trial.params:
                value = distribution.to_internal_repr(drawn.params[name])
                self._store.study._storage.set_trial_param(trial._trial_id, name, value, distribution)
        deaths = self.leases.take(trial._trial_id, self.place, lease)
        moved = lease is None or lease.place != self.place
        return Taken(Trial(self._store.study, trial._trial_id), deadly=deaths >= _DEATHS, moved=moved)

    def _begin(self, number: int, trials: list[FrozenTrial]) -> Taken:
        drawn = draw(self._spec, number, trials)
        study = self._store.study
        study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=drawn.params,
                distributions=drawn.distributions,
                system_attrs=drawn.system_attrs,
            )
        )
        (begun,) = [trial for trial in study.get_trials(deepcopy=False) if trial.number == number]
        self.leases.take(begun._trial_id, self.place, None)
        return Taken(Trial(study, begun._trial_id), deadly=False, moved=False)

"""Assign trials to workers: abandoned ones first, then waiting ones, then new ones, within the budget.

No lock is held while a worker decides: it acts on what it has read, and the database refuses the second of two. A
waiting trial is begun by Optuna's own change of state, a running one belongs to whom its lease says
(`search.storage.leases`). Only adding a trial, which needs their count, is done by one worker at a time.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from search.filesystem import locked, place_of
from search.sampling.samplers import budget, draw, results_needed
from search.storage.folder import StudyFolder
from search.storage.leases import Lease, Leases
from search.storage.studies import Store
from search.study.spec import StudySpec
from search.workers.heartbeat import Heartbeat

_DEATHS = 5
"""A trial is deadly if this many workers in a row have died in it without finishing an epoch."""
_DRAWN = "prune_search:drawn"
"""A trial's parameters are complete: until then, none is drawn that learns from them."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A trial that this worker has taken."""

    trial: Trial
    deadly: bool
    """It kills its workers, so it must not be tried again."""
    moved: bool
    """Its last worker was at another place, which may hold its files."""
    lease: int
    """Numbers the trial's leases: those of later workers are higher."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is no trial to take."""

    wait: bool
    """There may be one later: another worker may die, or must finish first. False: the budget is spent."""


class Scheduler:
    """Hands trials to one worker process."""

    def __init__(self, store: Store, spec: StudySpec, folder: StudyFolder, grace_period: float) -> None:
        """`grace_period`: seconds without a beat after which a worker on another machine is declared dead."""
        self._store, self._spec, self._folder = store, spec, folder
        self._study_id = store.study._study_id
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.place = place_of(folder.path, one_machine=store.database.on_one_machine)
        self.leases = Leases(store.database.engine, self._study_id, self.worker)
        self._grace = grace_period
        with store.database.alone("tables"):
            self.leases.create()

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
        heartbeat.check_budget(self.leases)
        leases = self.leases.all()  # read before the trials: whoever has a lease by now has begun his trial
        trials = self._trials()
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        for left in leases.keys() - {trial._trial_id for trial in running}:
            self.leases.drop(left)  # its worker died between its last two writes
        for trial in running:
            lease = leases.get(trial._trial_id)
            ready = _DRAWN in trial.system_attrs or self._may_draw(trial.number, trials)
            if ready and self._is_free(trial, lease, heartbeat) and (taken := self._take(trial, lease, held)):
                return taken
        total = budget(self._spec)
        waiting = [t for t in trials if t.state == TrialState.WAITING and (total is None or t.number < total)]
        for trial in waiting:
            if self._may_draw(trial.number, trials) and (taken := self._take(trial, None, held)):
                return taken
        if not waiting and (trial_id := self._add(total, held)) is not None:
            if taken := self._lease(trial_id, None):
                return taken
            held.close()
        return Nothing(wait=bool(running or waiting or total is None or len(trials) < total))

    def _trials(self) -> list[FrozenTrial]:
        return self._store.study.get_trials(deepcopy=False)

    def _is_free(self, trial: FrozenTrial, lease: Lease | None, heartbeat: Heartbeat) -> bool:
        """May its worker be dead? If it would lock the same file as this worker, the lock decides."""
        if lease is None or lease.worker in ("", self.worker) or lease.place == self.place:
            return True
        return heartbeat.observer.is_stale(trial._trial_id, lease)

    def _may_draw(self, number: int, trials: Sequence[FrozenTrial]) -> bool:
        """Are the results and the parameters known that a draw for this number learns from?"""
        needed = results_needed(self._spec, number)
        return needed == 0 or all(
            trial.state.is_finished() or (trial.number >= needed and _DRAWN in trial.system_attrs)
            for trial in trials
            if trial.number < number
        )

    def _take(self, trial: FrozenTrial, lease: Lease | None, held: ExitStack) -> Taken | None:
        """Take a running or a waiting trial; None: another worker has it, or was faster."""
        mine = self._lock(trial.number, held) and (trial.state == TrialState.RUNNING or self._begin(trial._trial_id))
        if mine and (taken := self._lease(trial._trial_id, lease)):
            return taken
        held.close()
        return None

    def _begin(self, trial_id: int) -> bool:
        try:
            return self._store.database.storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:  # another worker has begun and finished it since this one looked
            return False

    def _add(self, total: int | None, held: ExitStack) -> int | None:
        """Add a trial, its folder locked; returns its id, None if there is none to add, or not yet."""
        storage = self._store.database.storage
        with self._store.alone():
            trials = self._trials()
            number = len(trials)
            if (total is not None and number >= total) or not self._may_draw(number, trials):
                return None
            if not self._lock(number, held):
                return None
            trial_id = storage.create_new_trial(self._study_id, create_trial(state=TrialState.RUNNING))
        if storage.get_trial(trial_id).number != number:  # somebody has queued one at this moment
            held.close()
            return None
        return trial_id

    def _lock(self, number: int, held: ExitStack) -> bool:
        return held.enter_context(locked(self._folder.trial(number).lock, wait=False))

    def _lease(self, trial_id: int, before: Lease | None) -> Taken | None:
        """Take a running trial, and draw it if that is not done; None: another worker was faster."""
        if (lease := self.leases.take(trial_id, self.place, before)) is None:
            return None
        trial = self._store.database.storage.get_trial(trial_id)
        try:
            if trial.state.is_finished():  # its worker finished it after this one had looked
                raise UpdateFinishedTrialError
            if _DRAWN not in trial.system_attrs:
                self._draw(trial)
        except UpdateFinishedTrialError:
            self.leases.drop(trial_id)
            return None
        moved = before is None or before.place != self.place
        return Taken(Trial(self._store.study, trial_id), lease.deaths >= _DEATHS, moved, lease.beat)

    def _draw(self, trial: FrozenTrial) -> None:
        storage = self._store.database.storage
        fixed = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        drawn = draw(self._spec, trial.number, self._trials(), fixed)
        for name, distribution in drawn.distributions.items():
            if name not in trial.params:
                value = distribution.to_internal_repr(drawn.params[name])
                storage.set_trial_param(trial._trial_id, name, value, distribution)
        for key, note in {**drawn.system_attrs, _DRAWN: True}.items():
            storage.set_trial_system_attr(trial._trial_id, key, note)

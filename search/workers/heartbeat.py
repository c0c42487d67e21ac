"""A worker's heartbeat: a thread that shows it is alive, watches the others, and notices when the work must end."""

from __future__ import annotations

import contextlib
import threading
import time

from sqlalchemy.exc import SQLAlchemyError

from pruner.errors import InputError
from search.storage.leases import Leases, Lost, Observer
from search.study.spec import StudySpec

BEATS_PER_GRACE = 6
"""A worker is declared dead when this many beats in a row are missing."""


class BudgetSpent(Exception):
    """The study's time is up, or its target score is reached: start no trial, and give back the running one."""


class Heartbeat(threading.Thread):
    """The heartbeat of one worker; `leases` must have an engine of its own."""

    def __init__(self, leases: Leases, spec: StudySpec, grace_period: float) -> None:
        """`grace_period`: seconds without a beat after which a worker on another machine is declared dead."""
        super().__init__(name="heartbeat", daemon=True)
        self._leases, self._spec = leases, spec
        self._interval = grace_period / BEATS_PER_GRACE
        self.observer = Observer(grace_period, time.monotonic)
        self._lock = threading.Lock()
        self._held: int | None = None
        self._lost = False
        self._spent = ""
        self.worked: float | None = None
        """Seconds that the study has been worked on, as of the last beat; None: no beat yet."""
        self._ended = threading.Event()

    def hold(self, trial_id: int | None) -> None:
        """Beat for this trial from now on; None: for no trial."""
        with self._lock:
            self._held, self._lost = trial_id, False

    def check(self) -> None:
        """Raise Lost or BudgetSpent if the last beat found a reason to; costs nothing."""
        if self._lost:
            raise Lost
        if self._spent:
            raise BudgetSpent(self._spent)

    def check_budget(self, leases: Leases) -> None:
        """Raise BudgetSpent if, according to the database, the study's time is up or its target score is reached."""
        self._look_at_clock(leases)
        if self._spent:
            raise BudgetSpent(self._spent)

    def end(self) -> None:
        """Stop beating; wait for a beat that is in progress."""
        self._ended.set()
        self.join(timeout=2)

    def run(self) -> None:
        while True:
            with contextlib.suppress(SQLAlchemyError, InputError):  # away, or damaged: the main thread finds out, too
                self._beat()
            if self._ended.wait(self._interval):
                return

    def _beat(self) -> None:
        with self._lock:
            held = self._held
        if held is not None and not self._leases.beat(held):
            with self._lock:
                self._lost = self._held == held  # the trial may have been finished meanwhile
        self.observer.look(self._leases.all())
        self._look_at_clock(self._leases)

    def _look_at_clock(self, leases: Leases) -> None:
        self.worked, best = leases.work(longest_gap=3 * self._interval)
        self._spent = spent(self._spec, self.worked, best)


def spent(spec: StudySpec, seconds: float, best: float | None) -> str:
    """Why the study ends although trials may be left; empty: it does not."""
    if spec.target_score is not None and best is not None and best >= spec.target_score:
        return f"score {best:.2f} is reached (target_score = {spec.target_score:g})"
    if spec.timeout_hours is not None and seconds >= spec.timeout_hours * 3600:
        return f"the study was worked on for {seconds / 3600:.2f} hours (timeout_hours = {spec.timeout_hours:g})"
    return ""

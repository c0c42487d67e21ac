"""Which worker works on which trial, and how long the study has been worked on: two tables beside Optuna's.

A worker beats: it increments a number beside its trial. Another worker that sees the number unchanged for the grace
period takes the trial over. No two clocks are compared, and a machine that slept still has its lease unless another
worker has taken it. If both workers are on one machine, the lock on the trial's folder decides at once.

No lock is held: a lease is inserted once, by its key, and taken over by an update that applies only if the other
worker has not beaten meanwhile. The number never falls, so that its value when a lease is taken numbers the leases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import sqlalchemy as sql

LEASES_TABLE = "prune_search_leases"
_META = sql.MetaData()
_LEASES = sql.Table(
    LEASES_TABLE,
    _META,
    sql.Column("trial_id", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("study_id", sql.Integer, nullable=False, index=True),
    sql.Column("worker", sql.String(200), nullable=False),
    sql.Column("place", sql.String(200), nullable=False),
    sql.Column("beat", sql.BigInteger, nullable=False),
    sql.Column("deaths", sql.Integer, nullable=False),
)
_WORK = sql.Table(
    "prune_search_worked",
    _META,
    sql.Column("study_id", sql.Integer, primary_key=True, autoincrement=False),
    sql.Column("seconds", sql.Float(53), nullable=False),
    sql.Column("last", sql.Float(53), nullable=False),
    sql.Column("best", sql.Float(53), nullable=True),
)
_CLOCK = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch from clock_timestamp())",
}
"""The database's own clock in seconds; only differences matter."""


class Lost(Exception):
    """This worker was declared dead, and another has taken its trial: drop the trial."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's lease of a trial."""

    worker: str
    """Empty: the lease was given back."""
    place: str
    """Where the worker sees the trial's folder (`search.filesystem.place_of`)."""
    beat: int
    deaths: int
    """How many workers in a row have died in this trial without finishing an epoch."""


@dataclass(frozen=True, slots=True)
class Leases:
    """The leases of one study, for one worker. Every method is one transaction."""

    engine: sql.Engine
    study_id: int
    worker: str

    def create(self) -> None:
        """Create the tables and the study's row if necessary; one process at a time."""
        _META.create_all(self.engine)
        with self.engine.begin() as connection:
            if connection.execute(sql.select(_WORK).where(_WORK.c.study_id == self.study_id)).first() is None:
                connection.execute(_WORK.insert().values(study_id=self.study_id, seconds=0.0, last=0.0, best=None))

    def all(self) -> dict[int, Lease]:
        """Trial id -> lease, for the running trials."""
        with self.engine.begin() as connection:
            rows = connection.execute(sql.select(_LEASES).where(_LEASES.c.study_id == self.study_id))
            return {row.trial_id: Lease(row.worker, row.place, row.beat, row.deaths) for row in rows}

    def take(self, trial_id: int, place: str, before: Lease | None) -> Lease | None:
        """Make the trial this worker's; `before`: the lease it supersedes. None: another worker was faster."""
        if before is None:
            taken = Lease(self.worker, place, beat=0, deaths=0)
            change: sql.UpdateBase = _LEASES.insert().values(trial_id=trial_id, study_id=self.study_id)
        else:
            died = before.worker not in ("", self.worker)
            taken = Lease(self.worker, place, before.beat + 1, before.deaths + died)
            seen = (_LEASES.c.worker == before.worker, _LEASES.c.beat == before.beat)
            change = _LEASES.update().where(_LEASES.c.trial_id == trial_id, *seen)
        try:
            with self.engine.begin() as connection:
                return taken if connection.execute(change, asdict(taken)).rowcount != 0 else None
        except sql.exc.IntegrityError:
            return None

    def beat(self, trial_id: int) -> bool:
        """Show that this worker is alive. False: another worker has taken the trial."""
        return self._change(trial_id, beat=_LEASES.c.beat + 1)

    def got_on(self, trial_id: int) -> bool:
        """Record that an epoch is done: earlier deaths no longer count. False: another worker has taken the trial."""
        return self._change(trial_id, beat=_LEASES.c.beat + 1, deaths=0)

    def give_back(self, trial_id: int) -> None:
        """Give the trial back for another worker."""
        self._change(trial_id, worker="")

    def drop(self, trial_id: int) -> None:
        """Delete the lease of a finished trial."""
        with self.engine.begin() as connection:
            connection.execute(_LEASES.delete().where(_LEASES.c.trial_id == trial_id))

    def _change(self, trial_id: int, **values: object) -> bool:
        mine = _LEASES.update().where(_LEASES.c.trial_id == trial_id, _LEASES.c.worker == self.worker)
        with self.engine.begin() as connection:
            return connection.execute(mine.values(**values)).rowcount == 1

    def work(self, longest_gap: float) -> tuple[float, float | None]:
        """Bring the study's working time up to date; returns (that time in seconds, best score so far).

        Workers call this regularly. A gap of more than `longest_gap` seconds without a call is not counted, and time
        in which several workers called is counted once.
        """
        now: sql.ColumnElement[float] = sql.literal_column(_CLOCK[self.engine.dialect.name])
        gap = now - _WORK.c.last
        counted = sql.case((sql.and_(gap > 0, gap <= longest_gap), gap), else_=0.0)
        here = _WORK.c.study_id == self.study_id
        with self.engine.begin() as connection:
            connection.execute(_WORK.update().where(here).values(seconds=_WORK.c.seconds + counted, last=now))
            row = connection.execute(sql.select(_WORK).where(here)).one()
        return row.seconds, row.best

    def worked(self, seconds: float) -> None:
        """Set the seconds that the study had been worked on before its database was rebuilt."""
        with self.engine.begin() as connection:
            connection.execute(_WORK.update().where(_WORK.c.study_id == self.study_id).values(seconds=seconds))

    def reached(self, score: float) -> None:
        """Record the score of a trial that meets the constraints."""
        here = sql.and_(_WORK.c.study_id == self.study_id, sql.or_(_WORK.c.best.is_(None), _WORK.c.best < score))
        with self.engine.begin() as connection:
            connection.execute(_WORK.update().where(here).values(best=score))


class Observer:
    """Watches other workers' beats by this process's clock."""

    def __init__(self, grace_period: float, clock: Callable[[], float]) -> None:
        self._grace, self._clock = grace_period, clock
        self._seen: dict[int, tuple[str, int, float]] = {}
        self._looked = -math.inf

    def look(self, leases: dict[int, Lease]) -> None:
        """Note the current beats; call it regularly.

        Silence counts only while it is watched: while the database was away, no worker could beat.
        """
        now = self._clock()
        if self._is_blind():
            self._seen.clear()
        self._looked = now
        for gone in self._seen.keys() - leases.keys():
            del self._seen[gone]
        for trial_id, lease in leases.items():
            last = self._seen.get(trial_id)
            if last is None or last[:2] != (lease.worker, lease.beat):
                self._seen[trial_id] = (lease.worker, lease.beat, now)

    def is_stale(self, trial_id: int, lease: Lease) -> bool:
        """Has this lease not changed for the grace period?"""
        last = self._seen.get(trial_id)
        if last is None or last[:2] != (lease.worker, lease.beat) or self._is_blind():
            return False
        return self._clock() - last[2] > self._grace

    def _is_blind(self) -> bool:
        """Was the last look more than half the grace period ago?"""
        return self._clock() - self._looked > self._grace / 2

"""Access to a study's database: its URL, one process at a time where that matters, retries while it is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from pruner.errors import InputError
from search.database.address import printable, without_secrets
from search.database.sqlite_file import begin_immediately, is_damage, is_read_only, is_writable, may_pass, reader
from search.exit_status import read_only
from search.filesystem import locked
from search.patience import Hindrance, full_disk, patiently

T = TypeVar("T")

_SILENCE_S = 120
"""Seconds that a connection may be idle in a transaction before PostgreSQL ends it: a worker that was suspended there
(Ctrl-Z) must not block the others until it is resumed."""
DATABASE_ERRORS = DBAPIError | optuna.exceptions.StorageInternalError
"""The errors of a database that is away, locked or full."""


class Unreachable(InputError):
    """The database does not exist, or cannot be reached at the moment."""


class Database:
    """One process's access to one database. One thread uses it; another thread needs `another_engine`."""

    def __init__(self, url: URL, lock: Path, damaged: Callable[[str], InputError] = InputError) -> None:
        """`lock`: the file that processes on this machine lock; used with SQLite only, which is on one machine.

        `damaged`: makes the exception for a damaged file, raised now or later, from what is wrong with it.

        Raises InputError if the database cannot be reached or used.
        """
        self.url = url
        self._lock_file = lock
        self._damaged = damaged
        self.read_only = self.on_one_machine and not is_writable(self._file)
        """Is it a file that this process cannot write to, because of its disk or its folder?"""
        name = printable(url)
        try:
            with self.alone("tables"):  # of two processes that create one database's tables at once, one would fail
                self.storage = RDBStorage(url.render_as_string(hide_password=False), self._engine_options())
        except (ImportError, RuntimeError) as error:  # RuntimeError: tables of another version of Optuna
            raise InputError(f"{name}: {error}") from error
        except (DatabaseError, InterfaceError, optuna.exceptions.StorageInternalError) as error:
            cause = _original(error)
            if is_damage(cause):
                raise damaged(str(cause)) from error
            if may_pass(cause):
                raise
            raise Unreachable(f"{name}: cannot be reached ({reason(error)})") from error
        self.engine = self._watched(self.storage.engine)

    @property
    def _file(self) -> Path:
        return Path(self.url.database or ":memory:")

    @property
    def on_one_machine(self) -> bool:
        """Is it SQLite, which only processes on one machine may share?"""
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def alone(self, what: str) -> Iterator[None]:
        """Let one process at a time, on all machines, into such a block: for short steps that two must not do at once.

        On a server, a process that slept in the block, or whose connection broke, may go on beside another one, so
        nothing that must hold may depend on it: at worst, a study gets one trial more than its budget.
        """
        if self.read_only:
            yield
        elif self.on_one_machine:
            with locked(self._lock_file):
                yield
        else:
            with self.another_engine().begin() as connection:  # the lock goes with the transaction
                lock = sqlalchemy.text("SELECT pg_advisory_xact_lock(hashtextextended(:what, 0))")
                connection.execute(lock, {"what": f"prune-search {what}"})
                yield

    def verify(self) -> None:
        """Read a whole SQLite file. Raises what `damaged` makes if any part is damaged."""
        if self.on_one_machine:
            with self.engine.connect() as connection:
                said = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
            if said != "ok":
                raise self._damaged(said)

    def patiently(self, action: Callable[[], T], say: Callable[[str], None]) -> T:
        """Call `action`, and repeat it while the database is away (a server restarts) or a disk is full.

        `action` must be safe to repeat: after an error it is unknown whether the last step took effect.
        """
        return patiently(action, say, hindrance, before_again=self.engine.dispose)

    def storage_for_threads(self) -> RDBStorage:
        """The same database for a server with threads: as many connections as they need."""
        options = {**self._connecting(), "pool_pre_ping": True}
        storage = RDBStorage(self.url.render_as_string(hide_password=False), options)
        self._watched(storage.engine)
        return storage

    def another_engine(self) -> sqlalchemy.Engine:
        """An engine for another thread, or for a write while the connection is in use. It keeps no connection open."""
        return self._watched(sqlalchemy.create_engine(self.url, poolclass=NullPool, **self._connecting()))

    def _watched(self, engine: sqlalchemy.Engine) -> sqlalchemy.Engine:
        """Have SQLite transactions exclude each other, and explain errors of damaged or read-only files."""
        if self.on_one_machine:
            sqlalchemy.event.listen(engine, "handle_error", self._explain)
            if not self.read_only:
                begin_immediately(engine)
        return engine

    def _explain(self, context: sqlalchemy.engine.ExceptionContext) -> None:
        if is_damage(context.original_exception):
            raise self._damaged(str(context.original_exception)) from context.original_exception
        if is_read_only(context.original_exception):
            raise read_only(self._file) from context.original_exception

    def _connecting(self) -> dict[str, Any]:
        """The connection options of every engine."""
        options = self._engine_options()
        return {key: options[key] for key in ("connect_args", "creator") if key in options}

    def _engine_options(self) -> dict[str, Any]:
        if self.read_only:
            return {"creator": reader(self._file)}
        if self.on_one_machine:
            return {"connect_args": {"timeout": 60}}
        # One connection is kept. Optuna briefly needs a second one when it checks its tables' version.
        # A machine that vanishes must not keep its locks for the usual two hours.
        connect_args = {
            "connect_timeout": 3,
            "keepalives_idle": 30,
            "options": "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3 "
            f"-c idle_in_transaction_session_timeout={_SILENCE_S}s",
        }
        return {"pool_size": 1, "max_overflow": 1, "pool_pre_ping": True, "connect_args": connect_args}


def reason(error: BaseException) -> str:
    """A database error in one line."""
    chain = list(_chain(error))
    cause = next((one for one in chain if isinstance(one, DBAPIError)), chain[-1])
    text = without_secrets(str(getattr(cause, "orig", None) or cause)).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _original(error: BaseException) -> BaseException | None:
    """The driver's own error behind a database error."""
    return next((one.orig for one in _chain(error) if isinstance(one, DBAPIError)), None)


def hindrance(error: BaseException) -> Hindrance | None:
    """The cause of an error, if it may pass: a database that does not answer, a full disk."""
    cause = error.__cause__ if isinstance(error, Unreachable) and error.__cause__ else error
    if any(
        isinstance(one, OperationalError | InterfaceError)
        or (isinstance(one, DBAPIError) and one.connection_invalidated)
        for one in _chain(cause)
    ):
        return Hindrance(f"The database does not answer ({reason(cause)})", "The database is back.")
    return full_disk(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and the database errors that led to it. An error that breaks a connection in the middle of a query
    comes wrapped in an error of the rollback that followed, which Optuna wraps once more."""
    one: BaseException | None = error
    while isinstance(one, SQLAlchemyError | optuna.exceptions.StorageInternalError):
        yield one
        one = one.__cause__ or one.__context__

"""The way into a study's database: its URL, one process at a time where that matters, waiting while it is away."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from pruner.errors import InputError
from pruner.extras import has
from search.filesystem import locked, network_filesystem

T = TypeVar("T")

_DRIVERS = {"postgresql": ("psycopg", "postgres"), "mysql": ("pymysql", "mysql")}
"""Server -> its driver, and the extra of this package that installs it."""
_PATIENCE_S = 600.0
"""How long a database that was there may be away before a worker gives up."""


_SILENCE_S = 120
"""How long a connection may be silent in a transaction or under the study's lock before PostgreSQL ends it: a worker
that was stopped there (Ctrl-Z) must not hold up the others until it is woken."""


class LockLost(Exception):
    """The connection that held the study's lock is gone; what was done under it must be looked at anew."""


class Database:
    """One process's way into one database. Used by one thread; another thread asks for `another_engine`."""

    def __init__(self, url: URL, lock: Path, silence: int = _SILENCE_S) -> None:
        """`lock`: the file that processes on this machine lock; used with SQLite only, which is on one machine.

        `silence`: seconds that PostgreSQL lets a connection hold locks without a word.

        Raises InputError if the database cannot be reached or used.
        """
        self.url = url
        self._silence = silence
        self._lock_file = lock
        self._holder: Any = None
        name = url.render_as_string(hide_password=True)
        try:
            with self._alone_while_opening():
                self.storage = RDBStorage(url.render_as_string(hide_password=False), self._engine_options())
        except (ImportError, RuntimeError) as error:  # RuntimeError: tables of another version of Optuna
            raise InputError(f"{name}: {error}") from error
        except (OperationalError, InterfaceError, optuna.exceptions.StorageInternalError) as error:
            raise InputError(f"{name}: cannot be reached ({reason(error)})") from error
        self.engine = self.storage.engine
        if self.on_one_machine:
            _begin_immediately(self.engine)
        else:
            sqlalchemy.event.listen(self.engine, "begin", self._check_lock)

    @property
    def on_one_machine(self) -> bool:
        """Is it SQLite, which only processes of one machine may share?"""
        return self.url.get_backend_name() == "sqlite"

    @contextmanager
    def alone(self, study_id: int) -> Iterator[None]:
        """Hold the study's lock: of all processes on all machines, one at a time is in such a block.

        On a server the lock belongs to a connection, and everything in the block goes through that connection: if it
        breaks, the next statement raises LockLost or the database's error instead of going on unprotected.
        """
        if self.on_one_machine:
            with locked(self._lock_file):
                yield
            return
        key = f"study {study_id}"
        with self.engine.connect() as connection:
            _take_lock(connection, key, self._silence)
            connection.rollback()
            self._holder = connection.connection.dbapi_connection
        try:  # the connection is back in the pool, which holds just this one, and its session still has the lock
            yield
            with self.engine.connect() as connection:
                _let_go(connection, key)
        except BaseException:
            self.engine.dispose()  # closes the connection, which frees the lock
            raise
        finally:
            self._holder = None

    def patiently(self, action: Callable[[], T], say: Callable[[str], None], patience: float = _PATIENCE_S) -> T:
        """Do it, and again while the database is away (a server that restarts, a full disk), up to `patience` seconds.

        `action` must be safe to repeat: after an error nobody knows whether the last step took effect.
        """
        began, pause = time.monotonic(), 0.5
        while True:
            try:
                result = action()
            except (SQLAlchemyError, optuna.exceptions.StorageInternalError, LockLost) as error:
                left = patience - (time.monotonic() - began)
                if not _may_pass(error) or left <= 0:
                    raise
                if pause == 0.5:
                    say(f"The database does not answer ({reason(error)}); trying again for {left / 60:.0f} min.")
                self.engine.dispose()
                time.sleep(pause)
                pause = min(pause * 1.5, 10.0)
            else:
                if pause > 0.5:
                    say("The database is back.")
                return result

    def storage_for_threads(self) -> RDBStorage:
        """The same database for a server with threads: as many connections as they ask for, none under the lock."""
        options = {"connect_args": self._engine_options()["connect_args"], "pool_pre_ping": True}
        storage = RDBStorage(self.url.render_as_string(hide_password=False), options)
        if self.on_one_machine:
            _begin_immediately(storage.engine)
        return storage

    def another_engine(self) -> sqlalchemy.Engine:
        """For another thread, or for a last word while this one's connection is in use. Keeps no connection open."""
        connect_args = self._engine_options()["connect_args"]
        engine = sqlalchemy.create_engine(self.url, poolclass=NullPool, connect_args=connect_args)
        if self.on_one_machine:
            _begin_immediately(engine)
        return engine

    def _engine_options(self) -> dict[str, Any]:
        if self.on_one_machine:
            return {"connect_args": {"timeout": 60}}
        # One connection is kept, so that what follows a lock goes through the connection that holds it. Optuna needs
        # a second for a moment when it looks at its tables' version.
        options: dict[str, Any] = {"pool_size": 1, "max_overflow": 1, "pool_pre_ping": True}
        if self.url.get_backend_name() == "postgresql":
            # A machine that vanishes must not keep its locks for the two hours that are usual.
            options["connect_args"] = {
                "connect_timeout": 3,
                "keepalives_idle": 30,
                "options": "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3 "
                f"-c idle_in_transaction_session_timeout={self._silence}s",
            }
        else:
            options["connect_args"] = {"connect_timeout": 3}
        return options

    @contextmanager
    def _alone_while_opening(self) -> Iterator[None]:
        """Of two processes that make one database's tables at once, one would fail."""
        if self.on_one_machine:
            with locked(self._lock_file):
                yield
            return
        engine = self.another_engine()
        with engine.connect() as connection:
            _take_lock(connection, "tables", self._silence)
            yield
            _let_go(connection, "tables")

    def _check_lock(self, connection: sqlalchemy.Connection) -> None:
        if self._holder is not None and connection.connection.dbapi_connection is not self._holder:
            raise LockLost


def study_url(given: str | None, default: Path) -> URL:
    """The database's URL: the one given, else SQLite in that file.

    Raises InputError for a URL that is none, a driver that is not installed, SQLite on a network file system.
    """
    if given is None:
        url = URL.create("sqlite", database=str(default))
    else:
        try:
            url = make_url(given.replace("postgres://", "postgresql://", 1))
        except ArgumentError:
            raise InputError("--storage: not a database URL; for example postgresql://user@host/database") from None
    backend = url.get_backend_name()
    if backend == "sqlite":
        where = network_filesystem(Path(url.database or ".").absolute().parent)
        if where:
            raise InputError(
                f"{url.database}: is on a network file system ({where}), where SQLite loses data; put --runs on a "
                "local disk, or give a PostgreSQL database with --storage"
            )
    elif backend not in _DRIVERS:
        raise InputError(f"--storage: {backend} is not supported; use sqlite, postgresql or mysql")
    elif url.drivername == backend:
        driver, extra = _DRIVERS[backend]
        if not has(driver):
            raise InputError(f"--storage: {backend} needs a driver: pip install 'prune-search[{extra}]'")
        url = url.set(drivername=f"{backend}+{driver}")
    return url


def reason(error: BaseException) -> str:
    """A database's error in a line."""
    chain = list(_chain(error))
    cause = next((one for one in chain if isinstance(one, DBAPIError | LockLost)), chain[-1])
    if isinstance(cause, LockLost):
        return "the connection broke"
    text = str(getattr(cause, "orig", None) or cause).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _may_pass(error: BaseException) -> bool:
    return any(
        isinstance(one, LockLost | OperationalError | InterfaceError)
        or (isinstance(one, DBAPIError) and one.connection_invalidated)
        for one in _chain(error)
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, as far as that is the database's: what breaks a connection in the middle of a
    query comes out wrapped, as an error of the rollback that followed, which Optuna wraps once more."""
    one: BaseException | None = error
    while isinstance(one, SQLAlchemyError | optuna.exceptions.StorageInternalError | LockLost):
        yield one
        one = one.__cause__ or one.__context__


def _begin_immediately(engine: sqlalchemy.Engine) -> None:
    """Have SQLite take its write lock when a transaction begins.

    Otherwise two workers that both read, then write, can hand out one waiting trial twice.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def _no_implicit_begin(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def _begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _take_lock(connection: sqlalchemy.Connection, what: str, silence: int) -> None:
    """Wait for an advisory lock; it belongs to the connection's session until `_let_go` or the session's end, which
    PostgreSQL brings about after so many seconds without a word."""
    if connection.dialect.name == "postgresql":
        connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": _lock_key(what)})
        _end_if_silent(connection, silence)
    else:
        taken = connection.execute(sqlalchemy.text("SELECT GET_LOCK(:key, 600)"), {"key": f"prune-search {what}"})
        if taken.scalar() != 1:
            raise LockLost


def _let_go(connection: sqlalchemy.Connection, what: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": _lock_key(what)})
        _end_if_silent(connection, 0)
    else:
        connection.execute(sqlalchemy.text("SELECT RELEASE_LOCK(:key)"), {"key": f"prune-search {what}"})
    connection.rollback()


def _end_if_silent(connection: sqlalchemy.Connection, seconds: int) -> None:
    """Have PostgreSQL (14 or newer) end the session when it is idle for so long; 0: never."""
    setting = (
        "SELECT set_config('idle_session_timeout', :limit, false) "
        "WHERE current_setting('server_version_num')::int >= 140000"
    )
    connection.execute(sqlalchemy.text(setting), {"limit": f"{seconds}s"})
    connection.commit()  # a setting of a transaction that is rolled back is, too


def _lock_key(what: str) -> int:
    """PostgreSQL's advisory locks are numbers of 64 bits; it scopes them to the database itself."""
    digest = hashlib.sha256(f"prune-search {what}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)

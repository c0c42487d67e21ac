"""One SQLite file: is it intact, is it writable, and how to read it where nothing can be written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy

_BUSY_S = 60.0
"""How long to wait for another process's transaction."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TABLES = {
    "version_info", "studies", "study_directions", "study_user_attributes", "study_system_attributes", "trials",
    "trial_params", "trial_values", "trial_intermediate_values", "trial_user_attributes", "trial_system_attributes",
}  # fmt: skip
"""Optuna's tables, without which there is no study."""
BESIDE = ("-journal", "-wal", "-shm")
"""Endings of the files that SQLite keeps beside a database. Left beside another database of that name, they would
corrupt it."""

Connect = Callable[[], sqlite3.Connection]


def is_writable(path: Path) -> bool:
    """May this process write to the file, and beside it, where SQLite keeps its journal? True if the file is new."""
    if not path.parent.exists():
        return True
    return os.access(path.parent, os.W_OK) and (os.access(path, os.W_OK) or not path.exists())


def damage(path: Path, *, in_use: bool) -> str:
    """What is wrong with a study's database; empty if nothing is, or if it cannot be checked now (it is locked).

    `in_use`: trials have begun, so it must hold something. Otherwise, a process that was killed while it started may
    have left an empty file or only some of the tables.
    """
    if not path.exists():
        return ""
    if not path.is_file():
        return "it is a folder"
    if path.stat().st_size == 0:
        return "it is empty" if in_use else ""
    try:
        with closing(reader(path)()) as connection:
            said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except (sqlite3.DatabaseError, OSError) as error:
        return str(error) if is_damage(error) else ""
    if said != "ok":
        return " ".join(said.split())
    lost = sorted(_TABLES - tables)
    return f"it has no table {lost[0]}" if lost and in_use else ""


def is_damage(error: BaseException | None) -> bool:
    """Does an SQLite error mean that the file is damaged (rather than locked, full or out of reach)?"""
    return isinstance(error, sqlite3.DatabaseError) and (
        _code(error) in _DAMAGED or str(error).startswith("no such table")
    )


def is_read_only(error: BaseException | None) -> bool:
    """Does an SQLite error mean that the file cannot be written to?"""
    return isinstance(error, sqlite3.DatabaseError) and _code(error) == sqlite3.SQLITE_READONLY


def may_pass(error: BaseException | None) -> bool:
    """Does an SQLite error mean that the file is locked, or the disk full or failing?"""
    passing = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
    return isinstance(error, sqlite3.DatabaseError) and _code(error) in passing


def _code(error: sqlite3.DatabaseError) -> int:
    """The error code, without what SQLite adds in the upper bits."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def reader(path: Path) -> Connect:
    """A function that opens the file for reading. Where nothing can be written, it writes nothing, not even beside it.

    A transaction that a killed process left unfinished must be rolled back before anything can be read. Where nothing
    can be written, that is done in a copy, which is deleted when this process ends.
    """
    if is_writable(path):
        return partial(_connect, path, "rw")
    try:
        with closing(_connect(path, "ro")) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        return partial(_connect, _copy(path), "rw")
    return partial(_connect, path, "ro")


def begin_immediately(engine: sqlalchemy.Engine) -> None:
    """Have SQLite take its write lock when a transaction begins.

    Otherwise two workers that both read, then write, can take the same waiting trial.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def _no_implicit_begin(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def _begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    url = f"file:{quote(str(path.absolute()))}?mode={mode}"
    return sqlite3.connect(url, uri=True, timeout=_BUSY_S, check_same_thread=False)


def _copy(path: Path) -> Path:
    folder = tempfile.TemporaryDirectory(prefix="prune-search-")
    copied = Path(folder.name) / path.name
    _kept.append(folder)
    for ending in ("", *BESIDE):
        if (source := path.with_name(path.name + ending)).exists():
            shutil.copyfile(source, copied.with_name(copied.name + ending))
    return copied


_kept: list[tempfile.TemporaryDirectory[str]] = []
"""Copies, deleted when this process ends."""

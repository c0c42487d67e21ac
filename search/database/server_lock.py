"""A PostgreSQL lock that belongs to one connection's session: only one session on all machines can hold it."""

from __future__ import annotations

import hashlib

import sqlalchemy


class LockLost(Exception):
    """The connection that held the study's lock is gone; what was done under the lock must be checked again."""


def take_lock(connection: sqlalchemy.Connection, what: str, silence: int) -> None:
    """Wait for an advisory lock. It belongs to the connection's session until `let_go` or the session's end;
    PostgreSQL ends a session that is idle for `silence` seconds."""
    connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": _lock_key(what)})
    _end_if_silent(connection, silence)


def let_go(connection: sqlalchemy.Connection, what: str) -> None:
    """Release an advisory lock that `take_lock` took."""
    connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": _lock_key(what)})
    _end_if_silent(connection, 0)
    connection.rollback()


def _end_if_silent(connection: sqlalchemy.Connection, seconds: int) -> None:
    """Have PostgreSQL (14 or newer) end the session when it is idle for this long; 0: never."""
    setting = (
        "SELECT set_config('idle_session_timeout', :limit, false) "
        "WHERE current_setting('server_version_num')::int >= 140000"
    )
    connection.execute(sqlalchemy.text(setting), {"limit": f"{seconds}s"})
    connection.commit()  # a rollback would undo the setting, too


def _lock_key(what: str) -> int:
    """The 64-bit number that names an advisory lock; PostgreSQL scopes it to the database."""
    digest = hashlib.sha256(f"prune-search {what}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)

"""A lock that PostgreSQL keeps for one connection's session: whoever holds it is alone, on all machines."""

from __future__ import annotations

import hashlib

import sqlalchemy


class LockLost(Exception):
    """The connection that held the study's lock is gone; what was done under it must be looked at anew."""


def take_lock(connection: sqlalchemy.Connection, what: str, silence: int) -> None:
    """Wait for an advisory lock; it belongs to the connection's session until `let_go` or the session's end, which
    PostgreSQL brings about after so many seconds without a word."""
    connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": _lock_key(what)})
    _end_if_silent(connection, silence)


def let_go(connection: sqlalchemy.Connection, what: str) -> None:
    """Give back an advisory lock that `take_lock` took."""
    connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": _lock_key(what)})
    _end_if_silent(connection, 0)
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

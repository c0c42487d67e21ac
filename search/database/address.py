"""A database's address, and what may be printed of it: never its password.

`study_url` accepts an address only if it is clear which part is the password, and prints nothing of an address that it
rejects. `printable` is made of the parts that are not secret. Messages of other programs about the database pass
through `without_secrets` before they are shown.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote, quote_plus

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from pruner.errors import InputError
from pruner.system.extras import has
from search.filesystem import network_filesystem

_DRIVERS = {"postgresql": ("psycopg", "postgres")}
"""Server -> its driver, and the extra of this package that installs it."""
_HOST = re.compile(r"[\w.-]+|[0-9A-Fa-f:.]+(%\w+)?")
_SECRET_OPTION = re.compile(r"pass|pwd|secret|token|key", re.IGNORECASE)
_SHORTEST = 4
"""The shortest password, in characters, that is searched for in texts: shorter ones occur in ordinary words."""
_HIDDEN = "***"
_USER_AND_PASSWORD = re.compile(r"(\w:/{1,2}(?!/)[^\s:/@]*:)(.*@|(?!\d+\b)\S+)", re.DOTALL)
"""In any text: from the colon after a user name up to the last @; without an @, what is not a port."""
_BARE_USER_AND_PASSWORD = re.compile(r"(?<![\w/])([\w.-]+:)(?![\s/])[^@]*@(?=[\w.\[-])")
_PASSWORD_OPTION = re.compile(rf"([?&][^=&\s]*(?:{_SECRET_OPTION.pattern})[^=&\s]*=).*", re.IGNORECASE | re.DOTALL)

_secrets: set[str] = set()
"""All forms of the passwords that this process was given."""


def study_url(given: str | None, default: Path) -> URL:
    """The database's URL: the one given, or else SQLite in the file `default`.

    Raises InputError for an invalid URL, a driver that is not installed, or SQLite on a network file system.
    """
    url = URL.create("sqlite", database=str(default)) if given is None else _parsed(given)
    if url.get_backend_name() == "sqlite":
        where = network_filesystem(Path(url.database or ".").absolute().parent)
        if where:
            raise InputError(
                f"{url.database}: is on a network file system ({where}), where SQLite loses data; put --runs on a "
                "local disk, or give a PostgreSQL database with --storage"
            )
    return url


def printable(url: URL) -> str:
    """The address without its password, and without options, which may contain another one."""
    shown = URL.create(url.drivername, url.username, None, url.host, url.port, url.database)
    return shown.render_as_string(hide_password=True)


def without_secrets(text: str) -> str:
    """The text without the passwords of all given addresses, plain or encoded, and without anything that looks like
    a user's password in another address."""
    for pattern in (_USER_AND_PASSWORD, _BARE_USER_AND_PASSWORD, _PASSWORD_OPTION):
        text = pattern.sub(rf"\1{_HIDDEN}", text)
    for secret in sorted(_secrets, key=len, reverse=True):
        text = re.sub(re.escape(secret), _HIDDEN, text, flags=re.IGNORECASE)
    return text


def _parsed(given: str) -> URL:
    scheme, separator, rest = given.partition("://")
    scheme = scheme.lower()
    backend, plus, driver = scheme.partition("+")
    backend = "postgresql" if backend == "postgres" else backend
    if not separator:
        raise _malformed("it has no ://")
    if backend != "sqlite" and backend not in _DRIVERS:
        raise InputError("--storage: this kind of database is not supported; use sqlite or postgresql")
    try:
        given.encode()
        url = make_url(f"{backend}{plus}{driver}://{rest}")
    except (SQLAlchemyError, ValueError):
        raise _malformed("its port is not a number" if rest.isprintable() else "it has odd characters") from None
    _remember(url, rest)
    if backend == "sqlite":
        _check_file(url)
    elif reason := _unclear(url, rest):
        raise _malformed(reason)
    if backend in _DRIVERS and not driver:
        name, extra = _DRIVERS[backend]
        if not has(name):
            raise InputError(f"--storage: {backend} needs a driver: pip install 'prune-search[{extra}]'")
        url = url.set(drivername=f"{backend}+{name}")
    try:
        dialect = url.get_dialect()
        dialect.import_dbapi()
        dialect().create_connect_args(url)
    except ImportError:
        raise InputError(f"--storage: the driver after {backend}+ is not installed; leave it out") from None
    except (SQLAlchemyError, ValueError, TypeError, KeyError):
        raise _malformed("it has an unknown driver or an invalid option") from None
    return url


def _check_file(url: URL) -> None:
    if url.host or url.username or url.password or url.port:
        raise InputError("--storage: SQLite takes a file, after three slashes: sqlite:///FILE")
    if url.database in (None, "", ":memory:"):
        raise InputError("--storage: SQLite in memory is gone when the command ends; give sqlite:///FILE")


def _unclear(url: URL, rest: str) -> str:
    """Why the parts of a server's address cannot be told apart for sure; empty if they can."""
    user, at, _ = rest.rpartition("@")
    if rest.count("@") > 1:
        return "it has more than one @"
    if at and re.search(r"[/?]", user) and (url.username is not None or "?" not in user):
        return "it has a / or ? before its @"
    if ":" in rest.partition("?")[0].partition("/")[2]:
        return "it has a : after its /"
    if url.port is not None and not 0 < url.port < 65536:
        return "its port is not a number below 65536"
    if url.host is not None and not _HOST.fullmatch(url.host):
        return "its host is not a name"
    if any("\0" in part for part in (url.username or "", url.password or "", url.database or "")):
        return "it has a NUL"
    return ""


def _remember(url: URL, rest: str) -> None:
    options = [one for key, value in url.query.items() if _SECRET_OPTION.search(key)
               for one in ([value] if isinstance(value, str) else value)]  # fmt: skip
    written = rest.rpartition("@")[0].partition(":")[2]
    for secret in filter(None, (str(url.password or ""), written, *options)):
        quoted = (quote(secret, safe=""), quote(secret), quote(secret, safe=" +"), quote_plus(secret))
        escaped = (repr(secret)[1:-1], json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
        _secrets.update(form for form in (secret, *quoted, *escaped) if len(form) >= _SHORTEST)


def _malformed(reason: str) -> InputError:
    return InputError(
        f"--storage: not a database URL ({reason}); write @ : / # of a password as %40 %3A %2F %23 (and ? % as %3F "
        "%25), or leave it out and set PGPASSWORD; for example postgresql://user@host/database or sqlite:///FILE"
    )

"""Access control for the dashboard, which has none of its own, as WSGI middleware.

- Access from another address needs a password (HTTP basic authentication, with any user name).
- Without a password, the `Host` must be a loopback name, so that no web page can reach the dashboard by a name that
  its owner points at this machine (DNS rebinding).
- Changes must come from the dashboard's own pages: the browser's `Origin` must be the requested address, which is in
  `Host`. A proxy must pass `Host` on. `X-Forwarded-Host` is ignored, since anybody can send it, even through a proxy
  that does not set it.
- With `read_only`, all changes are refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ipaddress
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pruner.errors import InputError

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
PASSWORD_VARIABLE = "PRUNE_SEARCH_PASSWORD"
SHORTEST_PASSWORD = 8
_READING = ("GET", "HEAD", "OPTIONS")
_PORTS = {"http": 80, "https": 443}
_NOT_LOOPBACK = (
    "Open it as http://localhost or by this machine's loopback address; under another name, for example behind a "
    "proxy, it needs a password (--password-file)."
)
_ANOTHER_HOST = (
    "Refused: the proxy must pass on the browser's Host (nginx: proxy_set_header Host $host; where the port is not the "
    "usual one: $http_host). Without a proxy: changes are made from the dashboard's own pages only."
)


@dataclass(frozen=True, slots=True)
class Auth:
    """An app behind access control."""

    app: App
    password: str | None
    """None: no password is required."""
    read_only: bool

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if refused := self._refuse(environ):
            status, text = refused
            headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(text)))]
            if status.startswith("401"):
                headers.append(("WWW-Authenticate", 'Basic realm="prune-search", charset="UTF-8"'))
            start_response(status, headers)
            return [text.encode()]

        def start(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            # The dashboard allows every web site to read artifacts; any page could do so through a browser here.
            kept = [(name, value) for name, value in headers if name.lower() != "access-control-allow-origin"]
            return start_response(status, kept, *more)

        return self.app(environ, start)

    def _refuse(self, environ: dict[str, Any]) -> tuple[str, str] | None:
        """(status, reason) if the request is refused."""
        if self.password is None:
            if not is_loopback(_host(environ.get("HTTP_HOST", ""))):
                return "403 Forbidden", _NOT_LOOPBACK
        elif not _knows(self.password, environ.get("HTTP_AUTHORIZATION", "")):
            return "401 Unauthorized", "A password is needed."
        if environ["REQUEST_METHOD"] not in _READING:
            if self.read_only:
                return "403 Forbidden", "This dashboard is read-only."
            if environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
                return "403 Forbidden", "Changes are made from the dashboard's own pages only."
            if not _from_here(environ.get("HTTP_ORIGIN"), environ.get("HTTP_HOST", "")):
                return "403 Forbidden", _ANOTHER_HOST
        return None


def is_loopback(host: str) -> bool:
    """Is this a loopback name or address?"""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_password(file: Path | None) -> str | None:
    """The password from a file, or from the environment; None if there is none.

    Raises InputError if the file cannot be read or the password is too short.
    """
    where = f"--password-file {file}" if file else PASSWORD_VARIABLE
    if file is not None:
        try:
            password = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise InputError(f"{where}: cannot be read ({reason})") from None
    elif PASSWORD_VARIABLE in os.environ:
        password = os.environ[PASSWORD_VARIABLE]
    else:
        return None
    if len(password) < SHORTEST_PASSWORD:
        raise InputError(f"{where}: a password of {SHORTEST_PASSWORD} characters or more is needed")
    return password


def _knows(password: str, authorization: str) -> bool:
    kind, _, credentials = authorization.partition(" ")
    if kind.lower() != "basic":
        return False
    try:
        given = base64.b64decode(credentials, validate=True).partition(b":")[2]
    except (binascii.Error, ValueError):
        return False
    # Digests have equal lengths, so the timing does not reveal even the password's length.
    return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(password.encode()).digest())


def _from_here(origin: str | None, host: str) -> bool:
    """Does a page at `origin` (None: no browser) belong to the address that the browser requested?

    A missing port is taken from the origin's scheme, because behind a proxy that terminates TLS, the browser uses https
    while this server sees http.
    """
    if origin is None:
        return True
    scheme = origin.partition(":")[0].lower()
    if scheme not in _PORTS:
        return False
    ours = _place(f"{scheme}://{host}")
    return ours is not None and _place(origin) == ours


def _place(address: str) -> tuple[str, int] | None:
    """(host, port) of an http or https address; None if it is invalid."""
    try:
        parts = urlsplit(address)
        return (parts.hostname, parts.port or _PORTS[parts.scheme]) if parts.hostname else None
    except ValueError:
        return None


def _host(header: str) -> str:
    """The host in a Host header, without the port."""
    place = _place(f"http://{header}")
    return place[0] if place else ""

"""Getting in where one should not: the guard before the dashboard."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from processes import Command
from pruner.errors import InputError
from search.dashboard.auth import Auth, is_loopback, read_password
from studies import Finished

PASSWORD = "correct horse"


def app(_environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain"), ("Access-Control-Allow-Origin", "*")])
    return [b"in"]


def ask(gate: Auth, method: str = "GET", **headers: str) -> tuple[str, dict[str, str]]:
    """(status, headers) of a request."""
    given: list[Any] = []
    environ = {"REQUEST_METHOD": method, "PATH_INFO": "/", "HTTP_HOST": "localhost:8080", **headers}
    body = b"".join(gate(environ, lambda *start: given.extend(start)))
    assert (body == b"in") == given[0].startswith("200"), "something came through beside a refusal"
    return given[0], dict(given[1])


def basic(password: str, user: str = "anyone") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    "authorization",
    ["", "Basic", "Basic !!!", "Basic " + base64.b64encode(b"no colon").decode(), basic(""), basic("correct hors"),
     basic("correct horse "), basic("Correct horse"), basic("", user=PASSWORD), f"Bearer {PASSWORD}",
     basic(PASSWORD).replace("Basic", "Digest")],
)  # fmt: skip
def test_without_the_password_nobody_gets_in(authorization: str) -> None:
    gate = Auth(app, PASSWORD, read_only=False)
    for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
        status, headers = ask(gate, method, HTTP_AUTHORIZATION=authorization)
        assert status == "401 Unauthorized"
        assert headers["WWW-Authenticate"].startswith("Basic")


def test_with_the_password_one_gets_in_under_any_name() -> None:
    for user in ("", "anyone", "a b"):
        assert ask(Auth(app, PASSWORD, False), HTTP_AUTHORIZATION=basic(PASSWORD, user))[0] == "200 OK"
    colon = Auth(app, "with:colon", False)
    assert ask(colon, HTTP_AUTHORIZATION=basic("with:colon"))[0] == "200 OK"
    assert ask(Auth(app, "kennwort-groß", False), HTTP_AUTHORIZATION=basic("kennwort-groß"))[0] == "200 OK"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "MKCOL", "get", ""])
def test_read_only_refuses_whatever_may_change_something(method: str) -> None:
    assert ask(Auth(app, None, read_only=True), method)[0] == "403 Forbidden"
    inside = {"HTTP_AUTHORIZATION": basic(PASSWORD), "HTTP_X_HTTP_METHOD_OVERRIDE": "GET"}
    assert ask(Auth(app, PASSWORD, read_only=True), method, **inside)[0] == "403 Forbidden"
    assert ask(Auth(app, None, read_only=True), "GET")[0] == "200 OK"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "", "localhost.evil.example", "192.168.1.7", "["]
)
def test_on_loopback_no_foreign_name_leads_in(host: str) -> None:
    """A page at a name that its owner points at 127.0.0.1 would otherwise be the dashboard's own origin."""
    assert ask(Auth(app, None, False), HTTP_HOST=host)[0] == "403 Forbidden"


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1:8080", "[::1]:8080", "127.0.0.1"])
def test_on_loopback_this_machines_names_lead_in(host: str) -> None:
    assert ask(Auth(app, None, False), HTTP_HOST=host)[0] == "200 OK"


def test_another_sites_page_changes_nothing_and_reads_nothing() -> None:
    gate = Auth(app, None, read_only=False)
    assert ask(gate, "DELETE", HTTP_ORIGIN="http://evil.example")[0] == "403 Forbidden"
    assert ask(gate, "DELETE", HTTP_ORIGIN="null")[0] == "403 Forbidden"
    assert ask(gate, "POST", HTTP_SEC_FETCH_SITE="cross-site")[0] == "403 Forbidden"
    assert ask(gate, "POST", HTTP_ORIGIN="http://localhost:8080", HTTP_SEC_FETCH_SITE="same-origin")[0] == "200 OK"
    assert "Access-Control-Allow-Origin" not in ask(gate)[1]


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://lab.example.org", "lab.example.org"),
        ("https://lab.example.org", "lab.example.org:443"),
        ("https://lab.example.org:443", "LAB.example.org"),
        ("https://lab.example.org:8443", "lab.example.org:8443"),
        ("http://lab.example.org", "lab.example.org:80"),
        ("http://192.168.1.7:8080", "192.168.1.7:8080"),
        ("https://[2001:db8::1]", "[2001:db8::1]:443"),
        ("http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_behind_a_proxy_that_passes_on_the_host_changes_are_made(origin: str, host: str) -> None:
    gate = Auth(app, PASSWORD, read_only=False)
    inside = {"HTTP_AUTHORIZATION": basic(PASSWORD), "HTTP_ORIGIN": origin, "HTTP_HOST": host}
    for site in ({}, {"HTTP_SEC_FETCH_SITE": "same-origin"}):
        assert ask(gate, "PUT", **inside, **site)[0] == "200 OK"


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://lab.example.org", "127.0.0.1:8080"),
        ("https://lab.example.org:8443", "lab.example.org"),
        ("https://lab.example.org", "lab.example.org:80"),
        ("https://lab.example.org", "lab.example.org:port"),
        ("https://lab.example.org", "lab.example.org.evil.example"),
        ("https://lab.example.org", ""),
        ("http://[", "["),
        ("https://", ""),
        ("ftp://lab.example.org", "lab.example.org"),
        ("null", "null"),
        ("", ""),
    ],
)
def test_behind_a_proxy_that_does_not_the_refusal_says_what_to_set(origin: str, host: str) -> None:
    headers = {
        "HTTP_AUTHORIZATION": basic(PASSWORD), "HTTP_ORIGIN": origin, "HTTP_HOST": host,
        "HTTP_SEC_FETCH_SITE": "same-origin", "HTTP_X_FORWARDED_HOST": "lab.example.org",
    }  # fmt: skip
    environ = {"REQUEST_METHOD": "PUT", "PATH_INFO": "/", **headers}
    given: list[Any] = []
    text = b"".join(Auth(app, PASSWORD, read_only=False)(environ, lambda *start: given.extend(start))).decode()
    assert given[0] == "403 Forbidden"
    assert "proxy_set_header Host $host" in text[:90] and "$http_host" in text


def test_without_a_password_a_proxy_s_name_is_told_that_it_needs_one(command: Command) -> None:
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "HTTP_HOST": "lab.example.org"}
    text = b"".join(Auth(app, None, read_only=False)(environ, lambda *_: None)).decode()
    assert "--password-file" in text
    assert "proxy_set_header Host $host" in " ".join(command("dashboard", "--help").stdout.split())


def test_passwords_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRUNE_SEARCH_PASSWORD", raising=False)
    assert read_password(None) is None
    (tmp_path / "file").write_text(f"{PASSWORD}\n")
    monkeypatch.setenv("PRUNE_SEARCH_PASSWORD", "from the environment")
    assert read_password(tmp_path / "file") == PASSWORD
    assert read_password(None) == "from the environment"
    for empty in ("", "short"):
        monkeypatch.setenv("PRUNE_SEARCH_PASSWORD", empty)
        with pytest.raises(InputError, match="8 characters"):
            read_password(None)
    with pytest.raises(InputError, match="cannot be read"):
        read_password(tmp_path / "missing")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org", ""])
def test_what_is_not_loopback_is_not_taken_for_it(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.slow
def test_another_address_without_a_password_is_refused(command: Command, finished: Finished, tmp_path: Path) -> None:
    study, runs, _ = finished
    refused = command("dashboard", study, "--runs", runs, "--host", "0.0.0.0")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "--password-file" in refused.stderr
    secret = tmp_path / "short"
    secret.write_text("1234")
    short = command("dashboard", study, "--runs", runs, "--host", "0.0.0.0", "--password-file", secret)
    assert (short.returncode, len(short.stderr.splitlines())) == (2, 1)

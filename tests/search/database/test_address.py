"""A database's address: taken where it is clear, refused in a line where it is not, and its password never shown."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from processes import Command, children, running, wait_for, workers
from pruner.errors import InputError
from search.cli.main import main
from search.database import address
from search.database.address import printable, study_url, without_secrets
from search.storage.artifacts import artifact_store
from servers import Postgres
from studies import WriteStudy

HERE = Path("study.db")
HOW = "write @ : / # of a password as %40 %3A %2F %23"


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    """Passwords are kept by the process."""
    address._secrets.clear()
    yield
    address._secrets.clear()


@pytest.mark.parametrize(
    ("given", "driver", "host", "port", "database"),
    [
        ("postgresql://me:p%40ss@db.example.org:5433/name", "postgresql+psycopg", "db.example.org", 5433, "name"),
        ("postgres://me@localhost/name", "postgresql+psycopg", "localhost", None, "name"),
        ("POSTGRESQL://me@localhost/name", "postgresql+psycopg", "localhost", None, "name"),
        ("postgresql+psycopg://me:pass@[::1]:5432/name", "postgresql+psycopg", "::1", 5432, "name"),
        ("postgresql:///name?host=/run/postgresql", "postgresql+psycopg", None, None, "name"),
        ("postgresql://me:postgres://x@h/name", None, None, None, None),
        ("sqlite:///relative/study.db", "sqlite", None, None, "relative/study.db"),
        ("sqlite:////a@b:c/study.db", "sqlite", None, None, "/a@b:c/study.db"),
        ("SQLite:///C:\\here\\study.db", "sqlite", None, None, "C:\\here\\study.db"),
    ],
)
def test_an_address_that_is_clear_is_taken(
    given: str, driver: str | None, host: str | None, port: int | None, database: str | None
) -> None:
    if driver is None:
        with pytest.raises(InputError, match="before its @"):
            study_url(given, HERE)
        return
    url = study_url(given, HERE)
    assert (url.drivername, url.host, url.port, url.database) == (driver, host, port, database)


@pytest.mark.parametrize("character", list("@:/#?%&+ '\"\\=;,[]{}<>|^~`!$*()ä\n\t"))
def test_a_password_that_is_encoded_arrives_as_it_is(character: str) -> None:
    password = f"x{character}{character}yz"
    url = study_url(f"postgresql://me:{quote(password, safe='')}@host/name", HERE)
    assert (url.password, url.host) == (password, "host")
    assert password not in printable(url)


@pytest.mark.parametrize(
    "given",
    [
        "study.db", "", "://", "me:secret@host/name", "postgresql:/me:secret@host/name", "postgresql://me:secret",
        "postgresql://me:secret/name", "postgresql://me:se@cret@host/name", "postgresql://me:se/cret@host/name",
        "postgresql://me:se?cret@host/name", "postgresql://me:secret@host:port/name", "postgresql://me:secret@host:/a@b",
        "postgresql://me:secret@host:65536/name", "postgresql://me:secret@ho st/name", "postgresql://me/x:secret@host/name",
        "postgresql://me/x:sec?ret@host",
        "postgresql://host:5432/name?password=se@cret", "postgresql://me:sec%00ret@host/name",
        "postgresql+nothing://me:secret@host/name", "postgresql+psycopg2://me:secret@host/name",
        "postgresql+asyncpg://me:secret@host/name", "oracle://me:secret@host/name", "https://me:secret@host/name",
        "postgresql://me:sec\udcffret@host/name", "sqlite://study.db", "sqlite://me:secret@host/study.db", "sqlite://",
        "sqlite:///:memory:", "sqlite:///study.db?timeout=secret", "postgresql://me:secret@[::1/name",
    ],
)  # fmt: skip
def test_an_address_that_is_not_is_refused_in_a_line_that_shows_nothing_of_it(given: str) -> None:
    with pytest.raises(InputError) as refused:
        study_url(given, HERE)
    line = str(refused.value)
    assert line.startswith("--storage: ") and "\n" not in line
    assert (HOW in line and "PGPASSWORD" in line) or "supported" in line or "leave it out" in line or "SQLite" in line
    for part in ("secret", "cret", "ret@", "port/"):
        assert part not in line


@pytest.mark.parametrize(
    "text", ["me:sec ret@host/x", "(postgresql:/me:se@c/ret@host)", "x://me:sec", "//h/?Password=sec ret"]
)
def test_an_address_in_any_text_loses_its_password(text: str) -> None:
    assert "***" in without_secrets(text) and not re.search("sec|ret", without_secrets(text))


@pytest.mark.parametrize(
    "text",
    [
        "--storage: write @ : / # of a password as %40", "http://127.0.0.1:8080/dashboard", "s.toml: seed: not me@host",
        "postgresql+psycopg://me@127.0.0.1:5432/name: cannot be reached", "/a:b/x@y", "sqlite:////tmp/a@b:c/study.db",
    ],
)  # fmt: skip
def test_other_texts_are_left_alone(text: str) -> None:
    assert without_secrets(text) == text


def test_options_of_an_address_are_not_shown() -> None:
    url = study_url("postgresql://me@host/name?password=in-the-query&sslkey=abcdefg", HERE)
    assert printable(url) == "postgresql+psycopg://me@host/name"
    assert "in-the-query" not in without_secrets("connect(password='in-the-query', sslkey='abcdefg')")


PLACES = [
    "postgresql://me:{}@127.0.0.1:1/name", "postgresql://me:{}@127.0.0.1:port/name", "postgresql://me:{}@no host/name",
    "postgresql://me:{}@[::1/name", "postgresql+nothing://me:{}@host/name", "oracle://me:{}@host/name", "me:{}@h/name",
    "postgres://me:{}@127.0.0.1:1/name?sslmode=odd", "postgresql://me:{}@127.0.0.1:1/name?odd=option",
    "postgresql://me@127.0.0.1:1/name?password={}", "sqlite://me:{}@host/name", "PostgreSQL://:{}@127.0.0.1:1/name",
    "postgresql://me:{}@127.0.0.1:1", "postgresql://me:{}@", "postgresql://me:{}@/name?host=/nowhere",
]  # fmt: skip
PASSWORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=4, max_size=12) | st.text(
    "@:/#?%&+ '\"\\=ab{}[]\n*", min_size=4, max_size=12
)


def shown(*arguments: str) -> tuple[str, int]:
    """(all that a command prints, its exit status)."""
    address._secrets.clear()  # a process has one
    out = io.StringIO()
    argv, sys.argv = sys.argv, ["prune-search", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), pytest.raises(SystemExit) as ended:
            main()
    finally:
        sys.argv = argv
    return out.getvalue(), int(ended.value.code or 0)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("address") / "s.toml"
    path.write_text("trials = 1\n")
    return path


@settings(max_examples=60, phases=(Phase.explicit, Phase.generate))
@given(PASSWORDS, st.sampled_from(PLACES), st.booleans())
@example("p@ss/w:rd#1", PLACES[0], False)
@example("p@ss/w:rd#1", PLACES[0], True)
@example("100%41 ab", PLACES[0], False)
@example("a\nbcd", PLACES[0], True)
def test_nothing_shows_a_password(study: Path, password: str, place: str, encoded: bool) -> None:
    written = quote(password, safe="") if encoded else password
    runs = str(study.parent)
    for arguments in (
        ("status", str(study), "--runs", runs, "--storage", place),
        ("status", str(study), f"x{place}" if "://" in place else "x"),
        ("status", place if "://" in place else "x"),
    ):
        usual, _ = shown(*(argument.replace("{}", "Zq9xZq9x") for argument in arguments))
        printed, code = shown(*(argument.replace("{}", written) for argument in arguments))
        assert code not in (0, 1) and len(printed.splitlines()) == 1, printed
        for secret in (password, written, " ".join(password.split())):
            assert secret in usual or len(secret) < 4 or secret not in printed, printed
    with pytest.raises(InputError) as refused:
        artifact_store("s3://" + place.format(written).rpartition("://")[2])
    assert password not in str(refused.value)


@pytest.mark.parametrize("where", ["s3://KEY:SECRET@bucket/x", "https://me:SECRET@host/b", "S3://a:SECRET@b", "s3://"])
def test_keys_in_the_address_of_a_bucket_are_refused_and_not_shown(where: str) -> None:
    with pytest.raises(InputError, match="AWS_SECRET_ACCESS_KEY") as refused:
        artifact_store(where)
    assert "SECRET@" not in str(refused.value) and "a:" not in str(refused.value)


@pytest.mark.slow
def test_a_password_that_works_is_nowhere_to_be_seen(
    postgres: Postgres, command: Command, tmp_path: Path, write_study: WriteStudy
) -> None:
    """On the terminal, in files, among processes; with a server that takes any password."""
    password = "p@ss/w:rd#1 é"
    url = postgres.url("secret").replace("tester@", f"tester:{quote(password, safe='')}@")
    study, runs = write_study("trials = 1"), tmp_path / "runs"
    forms = [form.encode() for form in (password, quote(password), quote(password, safe=""))]
    with running("run", study, "--runs", runs, "--workers", 2, PRUNE_SEARCH_STORAGE=url) as process:
        wait_for(lambda: (runs / "tiny" / "trials" / "0000" / "recipe.json").exists(), process)
        for pid in (process.pid, *children(process.pid), *workers(process.pid)):
            with contextlib.suppress(OSError):  # it has ended
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
                assert not any(form in line for form in forms)
        postgres.stop()  # workers say what the driver says of it
        postgres.start()
        stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for text in (stdout.encode(), stderr.encode(), *files):
        assert not any(form in text for form in forms)
    asked = command("status", study, "--runs", runs, PRUNE_SEARCH_STORAGE=url.replace("/secret", "/nothing"))
    assert asked.returncode != 0 and password not in asked.stderr

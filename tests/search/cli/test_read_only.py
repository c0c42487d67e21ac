"""A study where nothing can be written can be looked at; what must write says so, and how to go on."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from search.database.sqlite_file import damage, is_writable, reader
from search.exit_status import ExitStatus
from studies import Finished

pytestmark = pytest.mark.slow

DRIVER = """
import contextlib, io, json, sys
from search.cli.main import main
told = []
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["prune-search", *arguments]
    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        try:
            main()
        except SystemExit as ended:
            told.append([int(ended.code or 0), said.getvalue(), complained.getvalue()])
print(json.dumps(told))
"""
"""Gives commands in a process of its own, and prints what came out."""
WITHOUT_RIGHTS = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner"]
"""Root is as any other user."""


def may_mount() -> bool:
    return os.getuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@pytest.fixture
def place(finished: Finished, tmp_path: Path) -> Iterator[tuple[Path, Path, Path]]:
    """(study file, runs folder, a folder to write to)."""
    folder = tmp_path
    shutil.copyfile(finished[0], folder / "tiny.toml")
    shutil.copytree(finished[1], folder / "r")
    (folder / "out").mkdir()
    yield folder / "tiny.toml", folder / "r", folder / "out"
    subprocess.run(["chmod", "-R", "u+w", folder], check=True)


def given(place: tuple[Path, Path, Path], how: str, commands: list[list[object]]) -> list[tuple[int, str, str]]:
    """(exit status, standard output, standard error) of the commands, given where the runs are read-only."""
    _, runs, out = place
    words = [[*map(str, command), "--runs", str(runs)] for command in commands]
    call = [sys.executable, "-c", DRIVER, json.dumps(words)]
    if how == "mount":
        mounted = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
        call = ["unshare", "-m", "sh", "-c", mounted, str(runs), *call]
    elif os.getuid() == 0:
        subprocess.run(["chown", "-R", "65534", runs], check=True)
        call = [*WITHOUT_RIGHTS, *call]
    else:
        subprocess.run(["chmod", "-R", "a-w", runs], check=True)
    done = subprocess.run(call, capture_output=True, text=True, cwd=out)
    assert done.returncode == 0, done.stderr
    return [(status, said, complained) for status, said, complained in json.loads(done.stdout.splitlines()[-1])]


@pytest.mark.parametrize("how", ["mount", "permission"])
def test_what_reads_works_and_what_writes_says_why_not(how: str, place: tuple[Path, Path, Path]) -> None:
    if how == "mount" and not may_mount():
        pytest.skip("needs the right to mount: root, and unshare")
    study, runs, out = place
    before = {str(path): path.stat().st_mtime_ns for path in runs.rglob("*")}
    reading: list[list[object]] = [
        ["status", study, "--json"],
        ["check", study],
        ["plot", study, "--out", out / "r.html", "--table", out / "t.csv"],
        ["plot", study, study, "--out", out / "c.html"],
        ["export", study, "--out", out / "export", "--format", "pth", "--no-grade"],
        ["predictor", study, "--out", out / "f.html"],
    ]
    writing: list[list[object]] = [
        ["run", study], ["worker", study], ["train-dense", study], ["check", study, "--fix"], ["plot", study],
        ["export", study, "--format", "pth", "--no-grade"],
    ]  # fmt: skip
    told = given(place, how, reading + writing)
    for arguments, (status, said, complained) in zip(reading, told, strict=False):
        assert status == ExitStatus.DONE, (arguments, complained)
        assert said
    assert json.loads(told[0][1])["trials"]["done"] == 4
    assert "in order" in told[1][1]
    assert sorted(path.name for path in out.iterdir()) == ["c.html", "export", "f.html", "r.html", "t.csv"]
    for arguments, (status, _, complained) in zip(writing, told[len(reading) :], strict=True):
        assert status == ExitStatus.BAD_INPUT, (arguments, complained)
        line = complained.splitlines()[-1]
        assert "the disk is read-only, or this user may not write here" in line
        assert "copy" in line
        assert "same command again" not in complained
    assert {str(path): path.stat().st_mtime_ns for path in runs.rglob("*")} == before


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_what_a_killed_process_left_half_written_is_not_read(journal: str, place: tuple[Path, Path, Path]) -> None:
    """On a read-only disk SQLite cannot undo it in place."""
    if not may_mount():
        pytest.skip("needs the right to mount: root, and unshare")
    study, runs, _ = place
    database = runs / "tiny" / "study.db"
    kill = (
        "import os, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "c.execute(f'PRAGMA journal_mode={sys.argv[2]}')\n"
        "c.execute('PRAGMA cache_size=1')\n"
        "c.execute('BEGIN'); c.execute('DELETE FROM trial_values'); c.execute('CREATE TABLE more (x)')\n"
        "for _ in range(2000): c.execute('INSERT INTO more VALUES (randomblob(500))')\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", kill, database, journal], check=True)
    assert any(database.with_name(f"study.db-{ending}").exists() for ending in ("journal", "wal"))
    ((status, said, complained),) = given(place, "mount", [["status", study, "--json"]])
    assert status == ExitStatus.DONE, complained
    assert json.loads(said)["best"] is not None


def test_a_file_that_can_be_written_is_opened_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a #file?%20.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("CREATE TABLE x (y)")
    assert is_writable(path)
    assert damage(path, in_use=False) == ""
    assert damage(path, in_use=True) == "it has no table studies"
    with closing(reader(path)()) as connection:
        connection.execute("INSERT INTO x VALUES (1)")
    assert is_writable(tmp_path / "new.db")
    assert damage(tmp_path / "new.db", in_use=True) == ""

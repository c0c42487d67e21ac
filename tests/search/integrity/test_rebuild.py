"""A damaged database: said in a line, never taken for one that is locked; and built anew from the trials' files."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from processes import Command, Invoke, running, wait_for
from records import figures, status
from repository import STUDIES
from search.exit_status import ExitStatus
from search.integrity.rebuild import rebuild
from search.sampling.recipe import recipe, sampled
from search.storage.folder import StudyFolder
from search.study.spec import read_study
from servers import Postgres
from studies import write_study

pytestmark = pytest.mark.slow

TRIALS = 6
MIXED = f"""
trials = {TRIALS}
space.learning_rate = [0.004, 0.008, 1e9]
constraints.max_mflops = 265
early_stopping.name = "asha"
sampler.n_startup_trials = 3
"""
"""Some of its trials fail, some are skipped, some are stopped."""
ONE = ("--workers", 1, "--threads", 1)


@pytest.fixture(scope="module")
def whole(invoke: Invoke, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(study file, runs folder) of a study whose trials end in every way, and that ran through undisturbed."""
    folder = tmp_path_factory.mktemp("whole")
    study = write_study(folder / "tiny.toml", MIXED)
    invoke("run", study, "--runs", folder / "r", *ONE)
    states = status(invoke, study, folder / "r")["trials"]
    assert all(states[state] for state in ("done", "failed", "skipped", "stopped")), states
    return study, folder / "r"


@pytest.fixture
def copied(whole: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The same, in a copy that may be spoilt."""
    shutil.copytree(whole[1], tmp_path / "r")
    return whole[0], tmp_path / "r"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40_000])


def overwrite_head(path: Path) -> None:
    path.write_bytes(b"<html>" * 100 + path.read_bytes()[600:])


def overwrite_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[20_000:60_000] = b"garbage!" * 5_000
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_text(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def drop_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE trial_values")


def drop_all_tables(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (x)")


def delete(path: Path) -> None:
    path.unlink()


DAMAGES = (
    truncate, overwrite_head, overwrite_middle, empty, replace_by_text, replace_by_folder, drop_table, drop_all_tables,
    delete,
)  # fmt: skip


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_the_damage_a_new_database_is_as_the_old_one(
    damage: Callable[[Path], None], command: Command, invoke: Invoke, copied: tuple[Path, Path]
) -> None:
    study, runs = copied
    before = status(invoke, study, runs)
    database = runs / "tiny" / "study.db"
    damage(database)
    spoilt = snapshot(database) if database.is_dir() else database.exists() and database.read_bytes()
    done = command("status", study, "--runs", runs)
    assert done.returncode == ExitStatus.DAMAGED
    (line,) = done.stderr.splitlines()
    finished = before["trials"]["done"]
    for words in (f"{finished} finished trials", str(runs / "tiny" / "trials"), "prune-search check STUDY --fix"):
        assert words in line
    assert "same command again" not in line
    rebuilt = rebuild(read_study(study), StudyFolder(runs / "tiny"))
    assert status(invoke, study, runs) == before
    kept = list((runs / "tiny").glob("study.db.damaged-*"))
    assert kept == ([] if damage is delete else [rebuilt.aside])
    for path in kept:
        assert (snapshot(path) if path.is_dir() else path.read_bytes()) == spoilt


def test_check_fixes_it(command: Command, invoke: Invoke, copied: tuple[Path, Path]) -> None:
    study, runs = copied
    before = status(invoke, study, runs)
    overwrite_middle(runs / "tiny" / "study.db")
    done = command("check", study, "--runs", runs, "--fix")
    assert done.returncode == ExitStatus.DONE, done.stderr
    (aside,) = (runs / "tiny").glob("study.db.damaged-*")
    assert f"from the files of {TRIALS} trials. The damaged one is kept as {aside}." in done.stdout
    assert "The study is in order." in done.stdout
    assert status(invoke, study, runs) == before


def test_every_command_says_that_the_database_is_damaged_and_changes_nothing(
    command: Command, copied: tuple[Path, Path], tmp_path: Path
) -> None:
    study, runs = copied
    truncate(runs / "tiny" / "study.db")
    before = snapshot(runs)
    out = tmp_path / "out"
    for arguments in (
        ("status", study, "--json"), ("run", study, *ONE), ("worker", study), ("serve", study, "--port", 0),
        ("plot", study, "--out", out / "r.html"), ("export", study, "--out", out), ("dashboard", study, "--port", 0),
        ("check", study), ("predictor", study, "--out", out / "f.html"),
        ("submit", study, "--id", "1", "--notebook", study, "--out", out),
    ):  # fmt: skip
        done = command(*arguments, "--runs", runs)
        assert done.returncode == ExitStatus.DAMAGED, (arguments, done.stderr)
        assert "is damaged (" in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
    assert snapshot(runs) == before
    assert not out.exists()


def test_a_study_that_is_fixed_half_way_ends_as_one_left_alone(
    invoke: Invoke, whole: tuple[Path, Path], tmp_path: Path
) -> None:
    study, runs = whole[0], tmp_path / "r"
    trials = runs / "tiny" / "trials"
    with running("run", study, "--runs", runs, *ONE) as process:  # one has failed, and of the next there is an epoch
        wait_for((trials / "0001" / "checkpoint.pt").exists, process)
        process.kill()
        process.wait()
    before = status(invoke, study, runs)
    assert [r["state"] for r in before["records"]] == ["failed", "running"], "it was killed too late to show anything"
    truncate(runs / "tiny" / "study.db")
    assert "takes up trials 1." in invoke("check", study, "--runs", runs, "--fix")
    after = status(invoke, study, runs)
    assert [r["sampled"] for r in after["records"]] == [r["sampled"] for r in before["records"]]
    invoke("run", study, "--runs", runs, *ONE)
    assert figures(status(invoke, study, runs)) == figures(status(invoke, study, whole[1]))
    logged = (trials / "0001" / "log.txt").read_text().count("epoch 1,")
    assert logged <= 1, "an epoch on disk was trained again"  # none: it was killed between checkpoint and log
    assert not (runs / "tiny" / "orphans").exists()


def test_a_study_of_an_earlier_version_is_rebuilt_by_the_next_run(
    invoke: Invoke, whole: tuple[Path, Path], copied: tuple[Path, Path]
) -> None:
    study, runs = copied
    for path in (*runs.glob("tiny/trials/*/trial.json"), runs / "tiny" / "dense.json"):
        path.unlink()
    truncate(runs / "tiny" / "study.db")
    sampled_before = [r["sampled"] for r in status(invoke, study, whole[1])["records"]]
    invoke("check", study, "--runs", runs, "--fix")
    assert [r["sampled"] for r in status(invoke, study, runs)["records"]] == sampled_before
    models = {path: path.stat().st_mtime_ns for path in runs.glob("tiny/trials/*/model.pth")}
    invoke("run", study, "--runs", runs, *ONE)
    one, other = (figures(status(invoke, study, where)) for where in (runs, whole[1]))
    told = [number for number, trial in enumerate(other) if trial["state"] != "stopped"]  # the rule decides those anew
    assert [one[number] for number in told] == [other[number] for number in told]
    assert {path: path.stat().st_mtime_ns for path in models} == models, "a finished trial was run again"
    assert len(list(runs.glob("tiny/trials/*/trial.json"))) == TRIALS


def test_trials_of_another_study_file_are_not_taken_over(
    command: Command, copied: tuple[Path, Path], tmp_path: Path
) -> None:
    _, runs = copied
    truncate(runs / "tiny" / "study.db")
    other = write_study(tmp_path / "tiny.toml", f"seed = 5\n{MIXED}")
    before = snapshot(runs)
    done = command("check", other, "--runs", runs, "--fix")
    assert done.returncode == ExitStatus.BAD_INPUT
    assert "another study file" in done.stderr
    assert snapshot(runs) == before


def test_a_trial_whose_files_are_lost_is_drawn_and_run_again(
    invoke: Invoke, whole: tuple[Path, Path], copied: tuple[Path, Path]
) -> None:
    study, runs = copied
    shutil.rmtree(runs / "tiny" / "trials" / "0001")  # with its network
    empty(runs / "tiny" / "study.db")
    assert "takes up trials 1." in invoke("check", study, "--runs", runs, "--fix")
    invoke("run", study, "--runs", runs, *ONE)
    assert figures(status(invoke, study, runs)) == figures(status(invoke, study, whole[1]))


def test_damaged_files_of_trials_do_not_stop_it(invoke: Invoke, copied: tuple[Path, Path]) -> None:
    study, runs = copied
    before = status(invoke, study, runs)
    trials = runs / "tiny" / "trials"
    (trials / "0000" / "trial.json").write_text('{"state": "COMPLETE"')
    (trials / "0002" / "recipe.json").write_text("[]")
    truncate(runs / "tiny" / "study.db")
    invoke("check", study, "--runs", runs, "--fix")
    after = status(invoke, study, runs)
    assert [r["sampled"] for r in after["records"]] == [r["sampled"] for r in before["records"]]


def test_a_database_that_is_locked_is_not_damaged(copied: tuple[Path, Path]) -> None:
    from search.database.sqlite_file import damage, is_damage

    database = copied[1] / "tiny" / "study.db"
    with closing(sqlite3.connect(database, isolation_level=None, timeout=0)) as one:
        one.execute("BEGIN EXCLUSIVE")
        with closing(sqlite3.connect(database, timeout=0)) as other, pytest.raises(sqlite3.OperationalError) as locked:
            other.execute("SELECT * FROM trials")
    assert not is_damage(locked.value)
    assert damage(database, in_use=True) == ""


def test_a_server_that_lost_the_study_gets_it_back(
    postgres: Postgres, command: Command, invoke: Invoke, tmp_path: Path
) -> None:
    study, runs = write_study(tmp_path / "tiny.toml", "trials = 2"), tmp_path / "r"
    first, second = (("--runs", runs, "--storage", postgres.url(name)) for name in ("first", "second"))
    invoke("run", study, *first, *ONE)
    assert command("status", study, *second).returncode == ExitStatus.DAMAGED
    invoke("check", study, *second, "--fix")
    one, other = (json.loads(invoke("status", study, *where, "--json")) for where in (first, second))
    assert one == other
    invoke("run", study, *second, *ONE)


@pytest.mark.parametrize("path", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_what_was_sampled_follows_from_the_recipe(path: Path) -> None:
    from search.sampling.samplers import draw

    spec = read_study(path)
    for number in range(3):
        params: dict[str, Any] = draw(spec, number, []).params
        assert sampled(recipe(params, spec), spec) == params


def test_a_half_made_file_is_not_in_the_way(invoke: Invoke, copied: tuple[Path, Path]) -> None:
    study, runs = copied
    before = status(invoke, study, runs)
    (runs / "tiny" / ".study.db.new").write_bytes(b"killed while it was built")
    (runs / "tiny" / ".study.db.new-journal").write_bytes(b"x" * 600)
    truncate(runs / "tiny" / "study.db")
    (runs / "tiny" / "study.db-journal").write_bytes(b"")
    rebuild(read_study(study), StudyFolder(runs / "tiny"))
    assert status(invoke, study, runs) == before

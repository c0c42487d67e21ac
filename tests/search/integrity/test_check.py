"""`check` finds every way in which files and database can disagree, and `--fix` brings them together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from processes import Command, Invoke
from pruner.network.loading import load_network
from records import figures, status
from search.integrity.check import Problem, find_problems
from search.storage.artifacts import Shared
from search.storage.folder import StudyFolder
from search.storage.studies import load_study
from search.storage.trial_folder import CHECKED, CHECKSUMS
from search.study.spec import read_study
from search.terminal.progress import Terminal
from studies import write_study

pytestmark = pytest.mark.slow
CHANGES = 'space.importance = "l2"'


@pytest.fixture(scope="module")
def pristine(invoke: Invoke, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(study file, runs folder) of a finished study."""
    folder = tmp_path_factory.mktemp("pristine")
    study = write_study(folder / "tiny.toml", CHANGES)
    invoke("run", study, "--runs", folder / "r")
    return study, folder / "r"


def test_what_disagrees_is_found_and_fixed(
    command: Command, invoke: Invoke, pristine: tuple[Path, Path], tmp_path: Path
) -> None:
    study, whole = pristine
    runs = tmp_path / "r"
    shutil.copytree(whole, runs)
    assert json.loads(invoke("check", study, "--runs", runs, "--json")) == {"problems": [], "left": []}
    assert "in order" in invoke("check", study, "--runs", runs)
    trials = runs / "tiny" / "trials"
    (trials / "0000" / "model.pth").unlink()  # made again from the checkpoint
    (trials / "0001" / "measurement.json").write_text('{"measurement": {"accuracy": 0.99}}')
    for path in (trials / "0002" / "model.pth", trials / "0002" / "checkpoint.pt"):
        path.write_bytes(path.read_bytes()[:1000])  # trained again from the start
    shutil.copytree(trials / "0003", trials / "0007")  # a trial the database does not know
    (trials / "0003" / ".model.pth.abc123").write_bytes(b"half")
    (score,) = (runs / "tiny" / "scores").glob("*.pt")
    score.write_bytes(b"damaged")
    found = command("check", study, "--runs", runs, "--json")
    assert found.returncode == 1
    problems = json.loads(found.stdout)["problems"]
    assert [problem["trial"] for problem in problems] == [0, 1, 2, None, None, None]
    told = [problem["what"] for problem in problems]
    expected = ["model.pth is missing", "says accuracy 0.99", "checkpoint.pt is damaged", "0007", "scores", ".abc123"]
    assert all(words in line for words, line in zip(expected, told, strict=True)), told
    listed = command("check", study, "--runs", runs)
    assert (listed.returncode, len(listed.stdout.splitlines())) == (1, 7)
    invoke("check", study, "--runs", runs, "--fix")
    assert json.loads(invoke("check", study, "--runs", runs, "--json"))["problems"] == []
    assert figures(status(invoke, study, runs)) == figures(status(invoke, study, whole))
    for number in range(3):
        mine, theirs = (load_network(r / f"tiny/trials/{number:04}/model.pth").state_dict() for r in (runs, whole))
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert len(list((runs / "tiny" / "orphans").glob("0007-*/model.pth"))) == 1


def problems_of(study: Path, runs: Path) -> list[Problem]:
    spec, folder = read_study(study), StudyFolder(runs / "tiny")
    return find_problems(Shared(load_study(spec, folder), None), folder, Terminal())


@pytest.fixture(scope="module")
def copied(pristine: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    study, whole = pristine
    return study, Path(shutil.copytree(whole, tmp_path_factory.mktemp("copied") / "r"))


@pytest.mark.parametrize("name", [*CHECKED, CHECKSUMS])
@settings(max_examples=15)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), kept=st.sampled_from([None, 0.0, 0.5, 1.0]))
def test_a_bit_that_flipped_anywhere_and_a_file_cut_off_anywhere_are_found(
    copied: tuple[Path, Path], name: str, place: float, bit: int, kept: float | None
) -> None:
    path = copied[1] / "tiny" / "trials" / "0001" / name
    content = path.read_bytes()
    damaged = bytearray(content)
    damaged[int(place * len(content))] ^= 1 << bit
    path.write_bytes(damaged if kept is None else content[: int(kept * (len(content) - 1))])
    try:
        (problem,) = problems_of(*copied)
    finally:
        path.write_bytes(content)
    assert problem.trial == 1
    # A note of checksums that still reads well accuses the file, not itself: either may be the damaged one.
    assert name == CHECKSUMS or f"{name} is damaged" in problem.what or f"{name} says" in problem.what


@pytest.mark.parametrize("name", [*CHECKED, CHECKSUMS])
def test_a_file_that_is_missing_is_found_unless_nothing_needs_it(copied: tuple[Path, Path], name: str) -> None:
    path = copied[1] / "tiny" / "trials" / "0001" / name
    content = path.read_bytes()
    path.unlink()
    found = problems_of(*copied)
    path.write_bytes(content)
    needless = name in ("checkpoint.pt", CHECKSUMS)
    assert [problem.what for problem in found] == ([] if needless else [f"{name} is missing"])


@pytest.mark.parametrize("name", ["model.pth", "checkpoint.pt"])
def test_damage_in_a_trial_of_a_version_without_checksums_is_found(copied: tuple[Path, Path], name: str) -> None:
    home = copied[1] / "tiny" / "trials" / "0001"
    sums, content = (home / CHECKSUMS).read_bytes(), (home / name).read_bytes()
    (home / CHECKSUMS).unlink()
    assert problems_of(*copied) == []
    middle = len(content) // 2
    for damaged in (content[:middle], content[:middle] + b"\xff\x00\xff" + content[middle + 3 :], b"no archive"):
        (home / name).write_bytes(damaged)
        assert [problem.what for problem in problems_of(*copied)] == [f"{name} is damaged"]
    (home / name).write_bytes(content)
    (home / CHECKSUMS).write_bytes(sums)


def test_a_damaged_checkpoint_of_a_finished_trial_is_deleted_and_one_of_the_others_computed_again(
    invoke: Invoke, pristine: tuple[Path, Path], tmp_path: Path
) -> None:
    study, whole = pristine
    runs = Path(shutil.copytree(whole, tmp_path / "r"))
    spoilt = [runs / "tiny" / "trials" / "0002" / "checkpoint.pt", *(runs / "dense").glob("*.json")]
    for path in spoilt:
        path.write_bytes(path.read_bytes()[:-9])
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("model.pth")}
    assert [problem.trial for problem in problems_of(study, runs)] == [2, None]
    invoke("check", study, "--runs", runs, "--fix")
    assert problems_of(study, runs) == []
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("model.pth")} == before


def test_a_study_begun_anew_beside_old_files_does_not_believe_them(
    invoke: Invoke, pristine: tuple[Path, Path], tmp_path: Path
) -> None:
    _, whole = pristine
    runs = tmp_path / "r"
    shutil.copytree(whole, runs)
    (runs / "tiny" / "study.db").unlink()
    other = write_study(tmp_path / "tiny.toml", f"seed = 5\ntrials = 1\n{CHANGES}")
    invoke("run", other, "--runs", runs)
    recipe = json.loads((runs / "tiny/trials/0000/recipe.json").read_text())
    old = json.loads((whole / "tiny/trials/0000/recipe.json").read_text())
    assert recipe["recipe"]["train"]["seed"] == 5 != old["recipe"]["train"]["seed"]
    (aside,) = (runs / "tiny" / "orphans").glob("0000-*")
    assert json.loads((aside / "recipe.json").read_text()) == old
    assert json.loads(invoke("check", other, "--runs", runs, "--json", expect=1))["problems"] != []
    invoke("check", other, "--runs", runs, "--fix")
    assert "in order" in invoke("check", other, "--runs", runs)


def test_a_damaged_database_is_told(command: Command, pristine: tuple[Path, Path], tmp_path: Path) -> None:
    study, whole = pristine
    runs = tmp_path / "r"
    shutil.copytree(whole, runs)
    database = runs / "tiny" / "study.db"
    content = bytearray(database.read_bytes())
    content[20_000:60_000] = bytes(40_000)
    database.write_bytes(content)
    done = command("check", study, "--runs", runs)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "database" in done.stdout + done.stderr

"""`check` finds every way in which files and database can disagree, and `--mend` brings them together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import Command, Invoke, figures, status

from pruner.loading import load_network

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pristine(invoke: Invoke, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(study file, runs folder) of a finished study."""
    from conftest import TINY_STUDY

    folder = tmp_path_factory.mktemp("pristine")
    study = folder / "tiny.toml"
    study.write_text(TINY_STUDY.replace('["l1", "l2", "bn_scale"]', '"l2"'))
    invoke("run", study, "--runs", folder / "r")
    return study, folder / "r"


def test_what_disagrees_is_found_and_mended(
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
    invoke("check", study, "--runs", runs, "--mend")
    assert json.loads(invoke("check", study, "--runs", runs, "--json"))["problems"] == []
    assert figures(status(invoke, study, runs)) == figures(status(invoke, study, whole))
    for number in range(3):
        mine, theirs = (load_network(r / f"tiny/trials/{number:04}/model.pth").state_dict() for r in (runs, whole))
        assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert len(list((runs / "tiny" / "orphans").glob("0007-*/model.pth"))) == 1


def test_a_study_begun_anew_beside_old_files_does_not_believe_them(
    invoke: Invoke, pristine: tuple[Path, Path], tmp_path: Path
) -> None:
    study, whole = pristine
    runs = tmp_path / "r"
    shutil.copytree(whole, runs)
    (runs / "tiny" / "study.db").unlink()
    other = tmp_path / "tiny.toml"
    other.write_text(study.read_text().replace("trials = 4", "seed = 5\ntrials = 1"))
    invoke("run", other, "--runs", runs)
    recipe = json.loads((runs / "tiny/trials/0000/recipe.json").read_text())
    old = json.loads((whole / "tiny/trials/0000/recipe.json").read_text())
    assert recipe["tune"]["seed"] == 5 != old["tune"]["seed"]
    (aside,) = (runs / "tiny" / "orphans").glob("0000-*")
    assert json.loads((aside / "recipe.json").read_text()) == old
    assert json.loads(invoke("check", other, "--runs", runs, "--json", expect=1))["problems"] != []
    invoke("check", other, "--runs", runs, "--mend")
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

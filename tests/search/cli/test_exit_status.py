"""Every exit status, provoked by a real command; the README lists them all."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
from pathlib import Path

import pytest

from processes import Command, running, wait_for
from repository import ROOT
from search.exit_status import ExitStatus
from studies import Finished, WriteStudy

slow = pytest.mark.slow


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def test_the_readme_lists_them_all() -> None:
    readme = (ROOT / "README.md").read_text()
    table = readme.partition("### Exit statuses")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| (\d+) \|", table, re.MULTILINE)
    assert [int(status) for column in zip(*rows, strict=True) for status in column] == list(ExitStatus)


@slow
def test_done_left_to_fix_bad_input_damaged_and_try_again(command: Command, finished: Finished, tmp_path: Path) -> None:
    study, runs, _ = finished
    where = ("--runs", tmp_path)
    subprocess.run(["cp", "-r", runs / "tiny", tmp_path], check=True)
    assert command("status", study, *where).returncode == ExitStatus.DONE
    assert command("status", tmp_path / "typo.toml").returncode == ExitStatus.BAD_INPUT
    assert command("status", study, "--runs", tmp_path / "typo").returncode == ExitStatus.BAD_INPUT
    (tmp_path / "file").write_text("")
    assert command("plot", study, *where, "--out", tmp_path / "file" / "r.html").returncode == ExitStatus.BAD_INPUT
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # stands for a full disk
    try:
        done = command("plot", study, *where, "--out", tmp_path / "r.html")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.returncode == ExitStatus.TRY_AGAIN
    assert "r.html: File too large; nothing finished is lost, give the same command again" in last_line(done)
    assert not (tmp_path / "r.html").exists()
    (tmp_path / "tiny" / "trials" / "0001" / "model.pth").unlink()
    assert command("check", study, *where).returncode == ExitStatus.LEFT_TO_FIX
    (tmp_path / "tiny" / "study.db").write_text("damaged")
    assert command("check", study, *where).returncode == ExitStatus.DAMAGED


@slow
@pytest.mark.parametrize(("trials", "workers"), [(2, 1), (4, 1), (2, 2)])
def test_all_trials_failed(
    trials: int, workers: int, command: Command, write_study: WriteStudy, finished: Finished, tmp_path: Path
) -> None:
    study = write_study(f"trials = {trials}\nspace.learning_rate = 1e12")
    base = next((finished[1] / "dense").glob("*.pth"))
    where = ("--runs", tmp_path / "r", "--dense", base, "--threads", 1)
    done = command("run", study, *where, "--workers", workers, "--json")
    assert done.returncode == ExitStatus.ALL_FAILED, done.stderr
    assert json.loads(done.stdout)["trials"]["failed"] == min(trials, 3 * workers)
    assert json.loads(done.stdout)["best"] is None
    assert "failed: the loss was nan in epoch" in last_line(done)
    assert "constraints" not in done.stderr
    assert (tmp_path / "r" / "tiny" / "report.html").exists()
    if workers == 1 and trials == 2:
        for again in (("run", study, "--workers", 1), ("worker", study)):
            assert command(*again, *where).returncode == ExitStatus.ALL_FAILED
        for taking in (("export", study), ("submit", study, "--id", "1", "--notebook", study)):
            done = command(*taking, "--runs", tmp_path / "r")
            assert done.returncode == ExitStatus.ALL_FAILED
            assert "All 2 trials have failed" in last_line(done)


@slow
@pytest.mark.parametrize("limit", ["min_accuracy = 1.0", "max_mflops = 10"])
def test_no_trial_keeps_to_the_constraints(
    limit: str, command: Command, write_study: WriteStudy, finished: Finished, tmp_path: Path
) -> None:
    study = write_study(f"trials = 2\nconstraints.{limit}")
    base = next((finished[1] / "dense").glob("*.pth"))
    where = ("--runs", tmp_path / "r", "--dense", base, "--threads", 1)
    done = command("run", study, *where, "--workers", 1, "--json")
    assert done.returncode == ExitStatus.NONE_FEASIBLE, done.stderr
    assert json.loads(done.stdout)["best"] is None
    name, value = limit.split(" = ")
    assert re.search(rf"trial \d came nearest: .*, [\d.]+ (over|under) {name} = {float(value):g}\.$", last_line(done))
    assert command("worker", study, *where).returncode == ExitStatus.NONE_FEASIBLE


@slow
def test_interrupted(write_study: WriteStudy, finished: Finished, tmp_path: Path) -> None:
    study = write_study("train.images_per_epoch = 12800")
    base = next((finished[1] / "dense").glob("*.pth"))
    with running("worker", study, "--runs", tmp_path, "--dense", base) as process:
        wait_for(lambda: list(tmp_path.glob("tiny/trials/*/plan.json")), process)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == ExitStatus.INTERRUPTED

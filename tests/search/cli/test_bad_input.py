"""Bad input: one clear line, a non-zero exit, no traceback, nothing half-written, nothing lost."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18

from processes import Command, running
from pruner.network.mobilenet import fresh
from search.cli.main import COMMANDS
from studies import Finished, WriteStudy


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """The one line a failed command printed."""
    assert done.returncode not in (0, 1)
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("prune-search: ")
    return line


@pytest.mark.slow
def test_bad_networks_are_refused_by_run_and_score(command: Command, write_study: WriteStudy, tmp_path: Path) -> None:
    whole = tmp_path / "whole.pth"
    torch.save(fresh(10, 0), whole)
    truncated, foreign = tmp_path / "truncated.pth", tmp_path / "foreign.pth"
    truncated.write_bytes(whole.read_bytes()[:500_000])
    torch.save(resnet18(), foreign)
    study = write_study()
    for path, word in ((truncated, "truncated"), (foreign, "resnet"), (tmp_path / "none.pth", "no such file")):
        assert word in complaint(command("evaluate", path, "--data", "digits"))
        assert word in complaint(command("run", study, "--dense", path, "--runs", tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_bad_study_files_and_options(command: Command, write_study: WriteStudy, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    misspelt = write_study("space.lerning_rate = 0.01")
    assert "did you mean learning_rate?" in complaint(command("run", misspelt, "--runs", runs))
    outside = write_study("space.pruning_ratio.head = [0.25, 1.0]")
    assert "head.1: input should be less than 1" in complaint(command("run", outside, "--runs", runs))
    assert not runs.exists()
    study = write_study()
    assert "not begun" in complaint(command("status", study, "--runs", runs))
    assert "not begun" in complaint(command("export", study, "--runs", runs))
    assert "--device" in complaint(command("run", study, "--runs", runs, "--device", "abacus"))
    assert "--treads" in complaint(command("run", study, "--treads", 2))
    for option, value in (
        ("--grace-period", "nan"),
        ("--grace-period", "inf"),
        ("--threads", 10**9),
        ("--workers", 10**9),
    ):
        assert option in complaint(command("run", study, option, value))
    for option in ("--start", "--end", "--step", "--nonzero"):
        assert option in complaint(command("sensitivity", "none.pth", option, "nan"))
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert "--runs" in complaint(command("run", study, "--runs", blocked))


def test_a_wrong_data_folder(command: Command, write_study: WriteStudy, tmp_path: Path) -> None:
    study = write_study('data.name = "cifar10"')
    offline = {"https_proxy": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "CIFAR10_ROOT": ""}
    wrong, runs = tmp_path / "wrong" / "deep", tmp_path / "runs"
    network = tmp_path / "network.pth"
    torch.save(fresh(10, 0), network)
    before = set(tmp_path.iterdir())
    for command_line in (
        ("run", study, "--runs", runs), ("worker", study, "--runs", runs), ("train-dense", study, "--runs", runs),
        ("evaluate", network), ("compare", network, "--out", tmp_path / "out" / "c.html"),
    ):  # fmt: skip
        line = complaint(command(*command_line, "--data-root", wrong, **offline))
        assert str(wrong) in line
        assert "CIFAR10_ROOT" in line
    assert set(tmp_path.iterdir()) == before
    there = tmp_path / "there"
    there.mkdir()
    complaint(command("evaluate", network, "--data-root", there, **offline))
    assert not list(there.iterdir())


def test_a_mistyped_path_leaves_no_folders_behind(command: Command, write_study: WriteStudy, tmp_path: Path) -> None:
    study, typo = write_study(), tmp_path / "typo"
    notebook = ("--id", "1", "--notebook", study)
    for command_line in (
        ("status", study), ("check", study), ("plot", study, "--out", typo / "r.html", "--table", typo / "t.csv"),
        ("plot", study, study), ("export", study, "--out", typo / "o"), ("dashboard", study, "--port", 0),
        ("submit", study, *notebook, "--out", typo), ("predictor", study, "--out", typo / "f.html"),
        ("export", study, "--artifacts", typo / "store"), ("run", study, "--dense", typo / "net.pth"),
        ("run", typo / "study.toml"), ("worker", study, "--dense", typo / "net.pth"),
    ):  # fmt: skip
        complaint(command(*command_line, "--runs", typo / "runs"))
        assert not typo.exists(), command_line


@pytest.mark.slow
def test_a_store_that_is_not_there_is_not_made_to_read_from(
    command: Command, finished: Finished, tmp_path: Path
) -> None:
    study, runs, _ = finished
    for name in ("export", "check", "dashboard"):
        line = complaint(command(name, study, "--runs", runs, "--artifacts", tmp_path / "typo" / "store"))
        assert "no such folder" in line
    assert not (tmp_path / "typo").exists()


@pytest.mark.slow
def test_no_space_left_loses_nothing(command: Command, write_study: WriteStudy, tmp_path: Path) -> None:
    study, runs = write_study(), tmp_path / "runs"
    with running("run", study, "--runs", runs) as process:
        # Stands for a full disk: the database still fits, a checkpoint does not.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
        stdout, stderr = process.communicate()
    done = subprocess.CompletedProcess([], process.returncode, stdout, stderr)
    assert "File too large" in complaint(done)
    left = [path for path in runs.rglob("*") if path.is_file() and path.suffix not in (".db", ".lock")]
    assert left == []
    assert command("run", study, "--runs", runs).returncode == 0


def test_help_teaches(command: Command) -> None:
    overview = command("--help")
    assert overview.returncode == 0
    for name, (_, short) in COMMANDS.items():
        assert name in overview.stdout and short in overview.stdout
        assert command(name, "--help").returncode == 0

"""Shared fixtures: real parts only. Nothing here stands in for our own code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner
from hypothesis import settings
from servers import Disk, Postgres, may_mount, postgres_programs
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.data.datasets import Dataset, digits
from pruner.network.mobilenet import fresh
from pruner.system.machine import prepare
from search.cli.main import cli, main

settings.register_profile("untimed", deadline=None)  # a busy machine is no mistake
settings.load_profile("untimed")

Command = Callable[..., subprocess.CompletedProcess[str]]
Invoke = Callable[..., str]

TINY_BASE = """
[data]
name = "digits"
resolution = 32
[dense]
init = "random"
optimizer = "adamw"
learning_rate = 0.004
epochs = 2
images_per_epoch = 96
batch_size = 32
[latency]
runs = 3
"""
"""Data and dense network of the tiny study, and of whatever goes on from it."""

TINY_RATIOS = """[space.pruning_ratio]
stage3 = { low = 0.1, high = 0.8 }
stage6 = { low = 0.1, high = 0.8 }
head = [0.25, 0.5]"""
"""What the tiny study samples, by stage."""

TINY_STUDY = f"""
trials = 4
epoch_eval_images = 32
{TINY_BASE}[space]
importance = ["l1", "l2", "bn_scale"]
learning_rate = {{ low = 0.002, high = 0.01, log = true }}
{TINY_RATIOS}
[train]
optimizer = "adamw"
epochs = 2
images_per_epoch = 64
batch_size = 32
"""


def pytest_configure() -> None:
    """Files are tested side by side: each tester, and what it starts, takes its own share of the cores for the machine.

    Two that both give torch all cores would be slower than one.
    """
    tester, testers = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if tester and testers and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[int(tester.removeprefix("gw")) % len(cores) :: int(testers)])


@contextmanager
def running(
    *arguments: object,
    stdout: int | IO[str] = subprocess.PIPE,
    stderr: int | IO[str] = subprocess.PIPE,
    **environment: str,
) -> Iterator[subprocess.Popen[str]]:
    """`prune-search` in a process of its own, whose children can be found; killed at the end if it still runs."""
    program = str(Path(sys.executable).with_name("prune-search"))
    with subprocess.Popen(
        [program, *map(str, arguments)],
        stdout=stdout, stderr=stderr, text=True, env={**os.environ, **environment},
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def workers(pool: int) -> list[int]:
    """A pool's workers are children of the server that it forks them from."""
    return [worker for child in children(pool) for worker in children(child)]


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
    """Until it holds, while the process, if one is given, is at work."""
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def status(invoke: Invoke, study: Path, runs: Path) -> dict[str, Any]:
    return json.loads(invoke("status", study, "--runs", runs, "--json"))


def figures(study: dict[str, Any]) -> list[dict[str, Any]]:
    """What a rerun must give again: everything but who did it, and how long it took."""
    timed = ("wall_seconds", "cpu_seconds", "cost", "worker", "threads", "latency_ms")
    return [{key: value for key, value in record.items() if key not in timed} for record in study["records"]]


@pytest.fixture(scope="session", autouse=True)
def _machine() -> None:
    prepare()


@pytest.fixture(scope="session")
def data() -> Dataset:
    return digits()


@pytest.fixture(scope="session")
def dense() -> MobileNetV2:
    """A dense network with random weights; tests leave it as it is."""
    return fresh(10, seed=0).eval()


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[..., Path]:
    """Write the tiny study with some lines replaced, or added in front; returns its path."""

    def write(*changes: tuple[str, str], extra: str = "", name: str = "tiny") -> Path:
        text = extra + TINY_STUDY
        for old, new in changes:
            assert old in text
            text = text.replace(old, new, 1)
        path = tmp_path / f"{name}.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Run `prune-search` to its exit status, in this process, which has torch already."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        given = [str(argument) for argument in arguments]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["prune-search", *given])
            if cwd:
                patch.chdir(cwd)
            for name, value in environment.items():
                patch.setenv(name, value)
            capfd.readouterr()
            with pytest.raises(SystemExit) as ended:
                main()
        prepare()
        stdout, stderr = capfd.readouterr()
        return subprocess.CompletedProcess(given, int(ended.value.code or 0), stdout, stderr)

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def invoke() -> Invoke:
    """Run `prune-search` in this process, which has torch already; returns what it printed."""

    def run(*arguments: object, expect: int = 0) -> str:
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == expect, result.stderr
        return result.stdout

    return run


@pytest.fixture(scope="session")
def finished(invoke: Invoke, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """(study file, runs folder, what `run --json` printed) of a tiny study that ran through undisturbed."""
    folder = tmp_path_factory.mktemp("finished")
    study = folder / "tiny.toml"
    study.write_text(TINY_STUDY)
    return study, folder / "runs", json.loads(invoke("run", study, "--runs", folder / "runs", "--json"))


@pytest.fixture(scope="session")
def course_files() -> tuple[Path, Path]:
    """(CIFAR-10's folder, the course's dense network), where they are at hand."""
    root, base = os.environ.get("CIFAR10_ROOT"), os.environ.get("PRUNE_SEARCH_BASE")
    if not root or not base:
        pytest.skip("needs CIFAR10_ROOT and PRUNE_SEARCH_BASE: the real CIFAR-10 and the course's network")
    return Path(root), Path(base)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL on loopback, where its server is installed."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("needs PostgreSQL's server: apt-get install postgresql")
    server = Postgres(programs)
    yield server
    server.remove()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk | None]:
    """A disk that can be filled, larger than any test needs; None where this process may not mount one."""
    if not may_mount(tmp_path / "probe"):
        yield None
        return
    mounted = Disk(tmp_path / "disk", 16_000)
    yield mounted
    mounted.remove()

"""Shared fixtures: real parts only. Nothing here stands in for our own code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import settings
from torchvision.models.mobilenetv2 import MobileNetV2

import studies
from processes import Command, Invoke
from pruner.channels.importance import score_channels
from pruner.channels.plan import apply_plan, make_plan
from pruner.data.datasets import Dataset, digits
from pruner.network.mobilenet import fresh
from pruner.network.structure import STAGES
from pruner.recipe import Prune
from pruner.system.machine import prepare
from search.cli.main import cli, main
from servers import Disk, Postgres, may_mount, postgres_programs
from studies import Finished, WriteStudy

settings.register_profile("untimed", deadline=None)  # a busy machine is no mistake
settings.load_profile("untimed")


def pytest_configure() -> None:
    """Files are tested side by side: each tester, and what it starts, takes its own share of the cores for the machine.

    Two that both give torch all cores would be slower than one.
    """
    tester, testers = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if tester and testers and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[int(tester.removeprefix("gw")) % len(cores) :: int(testers)])


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Where files or tests are named, there is too little to share out; None: as many testers as cores."""
    return 0 if any(Path(argument.partition("::")[0]).is_file() for argument in config.args) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs of the program come first: they take minutes, and at the end one tester would wait for another."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)


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


@pytest.fixture(scope="session")
def narrow(dense: MobileNetV2) -> MobileNetV2:
    """Half of the dense network's channels and less, for laws of all widths; tests leave it as it is."""
    prune = Prune(pruning_ratio=dict.fromkeys(STAGES, 0.6), output_pruning_ratio=dict.fromkeys(STAGES[:-1], 0.4))
    return apply_plan(dense, make_plan(dense, prune, score_channels(dense, "l1"))).eval()


@pytest.fixture(scope="session")
def small() -> MobileNetV2:
    """A few of MobileNetV2's blocks, for laws of any network; tests leave it as it is."""
    torch.manual_seed(0)
    model = MobileNetV2(num_classes=10, inverted_residual_setting=[[1, 16, 1, 2], [2, 24, 2, 2]])
    return model.to(memory_format=torch.channels_last)


@pytest.fixture
def write_study(tmp_path: Path) -> WriteStudy:
    """Write the tiny study, less some keys and extended by changes; returns its path."""

    def write(changes: str = "", *, without: Sequence[str] = (), name: str = "tiny") -> Path:
        return studies.write_study(tmp_path / f"{name}.toml", changes, without=without)

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
def finished(invoke: Invoke, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """(study file, runs folder, what `run --json` printed) of a tiny study that ran through undisturbed."""
    folder = tmp_path_factory.mktemp("finished")
    study = studies.write_study(folder / "tiny.toml")
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

"""Shared fixtures: real parts only. Nothing here stands in for our own code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.data import Dataset, digits
from pruner.machine import prepare
from pruner.mobilenet import fresh
from search.cli import cli

Command = Callable[..., subprocess.CompletedProcess[str]]
Invoke = Callable[..., str]

TINY_STUDY = """
trials = 4
watch_images = 32
[data]
name = "digits"
resolution = 32
[base]
init = "random"
optimizer = "adamw"
learning_rate = 0.004
epochs = 2
images_per_epoch = 96
batch = 32
[space]
importance = ["l1", "l2", "bn_scale"]
learning_rate = { low = 0.002, high = 0.01, log = true }
[space.cut]
stage3 = { low = 0.1, high = 0.8 }
stage6 = { low = 0.1, high = 0.8 }
head = [0.25, 0.5]
[train]
optimizer = "adamw"
epochs = 2
images_per_epoch = 64
batch = 32
"""


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


@pytest.fixture(scope="session")
def command() -> Command:
    """Run `prune-search` as a user does, in a process of its own."""

    def run(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("prune-search")), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=600,
            cwd=cwd,
            env={**os.environ, **environment},
        )

    return run


@pytest.fixture(scope="session")
def invoke() -> Invoke:
    """Run `prune-search` in this process, which has torch already; returns what it printed."""

    def run(*arguments: object) -> str:
        result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    return run


@pytest.fixture(scope="session")
def course_files() -> tuple[Path, Path]:
    """(CIFAR-10's folder, the course's dense network), where they are at hand."""
    root, base = os.environ.get("CIFAR10_ROOT"), os.environ.get("PRUNE_SEARCH_BASE")
    if not root or not base:
        pytest.skip("needs CIFAR10_ROOT and PRUNE_SEARCH_BASE: the real CIFAR-10 and the course's network")
    return Path(root), Path(base)

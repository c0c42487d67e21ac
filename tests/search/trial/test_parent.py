"""A study may go on from networks that another one left."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from processes import Command, Invoke
from pruner.network.loading import load_network
from records import status
from studies import DATA, Finished, write_study

UNTRAINED = {**DATA, "sampler": {"name": "grid"}, "train": {"epochs": 0}}


@pytest.fixture
def runs(finished: Finished, tmp_path: Path) -> Path:
    """A folder of runs that holds the finished tiny study."""
    return Path(shutil.copytree(finished[1], tmp_path / "runs"))


def trials(invoke: Invoke, finished: Finished) -> list[dict[str, Any]]:
    return status(invoke, *finished[:2])["records"]


@pytest.mark.slow
def test_the_networks_another_study_left_are_taken_as_they_are(
    invoke: Invoke, finished: Finished, runs: Path, tmp_path: Path
) -> None:
    best, other = sorted(trials(invoke, finished), key=lambda record: -record["score"])[:2]
    parents = f'["tiny/{best["number"]}", "tiny/{other["number"]}"]'
    study = write_study(tmp_path / "next.toml", f"space.parent = {parents}", base=UNTRAINED)
    invoke("run", study, "--runs", runs)
    records = status(invoke, study, runs)["records"]
    assert len(records) == 2
    for record, before in zip(records, (best, other), strict=True):
        for key in ("mflops", "params", "accuracy", "mflops_removed"):
            assert record[key] == before[key], key
        one, two = (
            load_network(runs / f"{name}/model.pth").state_dict()
            for name in (f"next/trials/{record['number']:04}", f"tiny/trials/{before['number']:04}")
        )
        assert all(torch.equal(a, b) for a, b in zip(one.values(), two.values(), strict=True))


@pytest.mark.slow
def test_a_parent_is_cut_further(invoke: Invoke, finished: Finished, runs: Path, tmp_path: Path) -> None:
    before = trials(invoke, finished)[0]
    space = 'parent = "tiny/0"\nimportance = ["l1", "obs"]\nglobal_pruning_ratio = 0.5'
    study = write_study(tmp_path / "next.toml", f"[space]\n{space}", base=UNTRAINED)
    invoke("run", study, "--runs", runs)
    for record in status(invoke, study, runs)["records"]:
        assert record["mflops"] < 0.7 * before["mflops"]
        assert record["mflops_removed"] > before["mflops_removed"], "of the dense network's"
        assert all(record["widths"][name] <= width for name, width in before["widths"].items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parent", "message"),
    [
        ("tiny/99", "trial 99 of study tiny is not finished"),
        ("nowhere.pth", "no such file"),
        ("none/0", "not finished"),
    ],
)
def test_a_parent_that_is_not_there_is_told(
    command: Command, runs: Path, tmp_path: Path, parent: str, message: str
) -> None:
    study = write_study(tmp_path / "next.toml", f'space.parent = "{parent}"', base=UNTRAINED)
    done = command("run", study, "--runs", runs)
    assert done.returncode not in (0, 1)
    (line,) = done.stderr.splitlines()
    assert message in line
    assert not (runs / "next").exists()

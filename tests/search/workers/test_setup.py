"""What the parts of a study file have in common is loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchvision.models.mobilenetv2 import MobileNetV2

from search.options import Options
from search.storage.folder import StudyFolder
from search.study.spec import read_study
from search.terminal.progress import Terminal
from search.workers.setup import Setup, set_up
from studies import WriteStudy


@pytest.mark.parametrize(
    ("changes", "shared"), [("trials = 1", True), ("seed = 1", False), ("data.holdout = 200", False)]
)
def test_a_part_takes_the_data_of_the_one_before_unless_it_would_load_others(
    write_study: WriteStudy, dense: MobileNetV2, tmp_path: Path, changes: str, shared: bool
) -> None:
    torch.save(dense, tmp_path / "dense.pth")
    options = Options(runs=tmp_path / "runs", dense=tmp_path / "dense.pth")

    def part(name: str, changes: str, before: Setup | None = None) -> Setup:
        spec = read_study(write_study(changes, name=name))
        return set_up(spec, StudyFolder(options.runs / spec.name), options, Terminal(), before)

    first = part("first", "")
    taken, alone = part("second", changes, first).context, part("second", changes).context
    assert (taken.data.train.images is first.context.data.train.images) == shared
    assert (taken.dense is first.context.dense) == shared
    assert torch.equal(taken.data.holdout.images, alone.data.holdout.images)
    assert taken.dense_hash == alone.dense_hash

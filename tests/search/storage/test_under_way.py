"""What is said of trials that are running."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from records import made
from search.results.metrics import metrics_csv
from search.storage.folder import StudyFolder
from search.storage.under_way import under_way

HISTORY = metrics_csv([{"epoch": n, "wall_seconds": 1.5, "cpu_seconds": 2.5, "loss": 1.0} for n in (1, 2)], None)


def test_the_epochs_on_disk_count_for_a_running_trial_alone(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path)
    found = [made(0, 100, 0.5), made(1, 100, 0.5, state="running"), made(2, 100, 0.5, state="running")]
    for number in (0, 1):
        folder.trial(number).path.mkdir(parents=True)
        folder.trial(number).metrics.write_text(HISTORY)
    ended, running, without = found
    assert under_way(found, folder) == ({1: 2}, [ended, replace(running, wall_seconds=3.0, cpu_seconds=5.0), without])


@pytest.mark.parametrize("damage", [b"", b"\0" * 99, b"\xff\xfe", b"epoch,loss\n1,2\n", HISTORY[:-4].encode()])
def test_a_damaged_table_hides_no_trial(damage: bytes, tmp_path: Path) -> None:
    folder, found = StudyFolder(tmp_path), [made(0, 100, 0.5, state="running")]
    folder.trial(0).path.mkdir(parents=True)
    folder.trial(0).metrics.write_bytes(damage)
    done, told = under_way(found, folder)
    assert [r.number for r in told] == [0] and done.get(0, 0) <= 2

"""What the end of a study is, by its trials alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from records import made
from search.exit_status import ExitStatus
from search.results.ending import ending
from search.results.records import Record, headline


def trial(number: int, state: str, reason: str = "", **excess: float) -> Record:
    r = replace(made(number, 60.0, 0.5), state=state, reason=reason, constraints=excess)
    return replace(r, feasible=all(value <= 0 for value in excess.values()))


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        ([], ExitStatus.DONE, "No trial has finished yet."),
        ([trial(0, "running")], ExitStatus.DONE, "No trial has finished yet."),
        ([trial(0, "failed", "nan")], ExitStatus.ALL_FAILED, "The only trial has failed: nan."),
        (
            [trial(0, "failed", "a"), trial(1, "failed", "b"), trial(2, "failed", "b"), trial(3, "failed", "c")],
            ExitStatus.ALL_FAILED,
            "All 4 trials have failed, 2 of them because: b.",
        ),
        (
            [trial(0, "failed", "a"), trial(1, "failed", "b"), trial(2, "running")],
            ExitStatus.ALL_FAILED,
            "2 trials have failed, the last because: b.",
        ),
        ([trial(0, "failed", "a"), trial(1, "stopped")], ExitStatus.ALL_FAILED, "1 stopped early. One trial has"),
        (
            [
                trial(0, "done", min_accuracy=0.2),
                trial(1, "done", min_accuracy=0.1),
                trial(2, "skipped", max_mflops=0.001),
            ],
            ExitStatus.NONE_FEASIBLE,
            "trial 1 came nearest: an accuracy of 0.5000, 0.1 under min_accuracy = 0.6.",
        ),
        (
            [trial(0, "done", min_accuracy=-0.1, max_mflops=20.0), trial(1, "done", min_accuracy=0.4, max_mflops=-9.0)],
            ExitStatus.NONE_FEASIBLE,  # 20 of 40 MFLOPs are a half, 0.4 of 0.9 is less
            "trial 1 came nearest: an accuracy of 0.5000, 0.4 under min_accuracy = 0.9.",
        ),
        ([trial(0, "skipped", min_mflops=3.0), trial(1, "failed", "x")], ExitStatus.NONE_FEASIBLE, "3 under"),
    ],
)  # fmt: skip
def test_the_end_of_a_study_without_a_network(found: Sequence[Record], status: ExitStatus, words: str) -> None:
    without = ending(found)
    assert without is not None
    assert without.status == status
    assert words in without.text
    assert without.text in headline(found)


def test_a_study_with_a_network_is_done_whatever_else_failed() -> None:
    assert ending([trial(0, "failed"), trial(1, "done"), trial(2, "done", min_accuracy=0.1)]) is None

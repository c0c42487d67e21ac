"""Which network a study file hands over."""

from __future__ import annotations

from pathlib import Path

import pytest

from records import made
from search.pipeline.remaining import Progressed
from search.pipeline.result import goes_back, handed_over
from search.study.spec import StudySpec, read_study
from studies import DATA, write_study


@pytest.fixture
def spec(tmp_path: Path) -> StudySpec:
    return study(tmp_path, "trials = 3")


def study(folder: Path, text: str) -> StudySpec:
    return read_study(write_study(folder / "study.toml", text, base=DATA))


def search(spec: StudySpec, mflops: float, accuracy: float) -> Progressed:
    return Progressed(spec, [made(0, mflops, accuracy)])


def test_what_the_holdout_flatters_decides_whether_the_last_step_paid(spec: StudySpec) -> None:
    done = [search(spec, 20, 0.925), search(spec, 12, 0.931), search(spec, 10, 0.922)]
    assert handed_over(done, None) == handed_over(done, 0.0) == handed_over(done, 0.003) == 2
    assert handed_over(done, 0.008) == 1, "two MFLOPs less earn 0.58 points, 0.6 % of accuracy are worth 2.7"
    assert "score is 54.58, that of" in goes_back(done, 1, 0.008)
    assert not goes_back(done, 2, 0.0) and not goes_back(done, 2, None)


def test_of_equals_the_last_is_handed_over_and_a_search_without_a_network_never(spec: StudySpec) -> None:
    done = [search(spec, 10, 0.93), search(spec, 10, 0.94)]
    assert handed_over(done, 0.01) == 1
    assert handed_over([*done, Progressed(spec)], 0.01) == 1


@pytest.mark.parametrize(
    "other", ["constraints.max_mflops = 10", "score.accuracy_full = 0.9", 'best_by = "params"', "eval_images = 32"]
)
def test_networks_are_compared_only_where_the_same_is_asked_of_them(
    spec: StudySpec, tmp_path: Path, other: str
) -> None:
    last = search(study(tmp_path, f"trials = 3\n{other}"), 10, 0.5)
    assert handed_over([search(spec, 12, 0.93), last], 0.01) == 1
    assert handed_over([search(spec, 12, 0.93), search(spec, 10, 0.5)], 0.01) == 0

"""How long the rest of a study file will take."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from processes import Invoke, running, wait_for
from records import made, status
from search.cost import Cost
from search.pipeline.parts import read_parts
from search.pipeline.remaining import FADES, FROZEN, MFLOPS, PIXELS, Progressed, core_seconds_left, not_begun, to_come
from search.results.metrics import epochs_in, metrics_csv
from search.results.records import Record
from search.study.spec import StudySpec
from studies import DATA, Finished, WriteStudy, write_study

THREE = """
trials = 10
[space]
target_mflops = 100
[train]
epochs = 0
[[searches]]
name = "search"
[[searches]]
name = "long"
train_only = true
[[searches.train.phases]]
resolution = 16
epochs = 2
[[searches.train.phases]]
resolution = 32
images_per_epoch = 500
[[searches]]
name = "longer"
train_only = true
train = { epochs = 3, resolution = 16 }
"""
IMAGES = 1000
EPOCH = IMAGES * (16 * 16 + PIXELS)
LONG = 2 * EPOCH + 500 * (32 * 32 + PIXELS)
"""The images times pixels of a trial of `long`, with what an image costs whatever its size."""


@pytest.fixture
def parts(tmp_path: Path) -> list[Progressed]:
    return list(map(not_begun, read_parts(write_study(tmp_path / "three.toml", THREE, base=DATA))))


def cost(number: int, seconds: float, state: str = "done") -> Record:
    return replace(made(number, 100, 0.5, state=state), cpu_seconds=seconds)


def ended(part: Progressed, seconds: float, count: int = 1) -> Progressed:
    """The part with so many trials that are done, each at that cost."""
    return replace(part, found=[cost(number, seconds) for number in range(count)])


def test_nothing_is_said_before_there_is_a_trial_to_judge_by(parts: list[Progressed]) -> None:
    assert core_seconds_left(parts, IMAGES) is None


def test_before_the_first_training_an_image_trained_on_costs_what_one_evaluated_does(parts: list[Progressed]) -> None:
    search, long, longer = parts
    evaluated = IMAGES // 9 * (search.spec.data.resolution**2 + PIXELS)
    left = core_seconds_left([ended(search, 3.0), long, longer], IMAGES)
    assert left == pytest.approx(3.0 * (9 + (LONG + 3 * EPOCH) / evaluated))
    seen = replace(search, spec=search.spec.model_copy(update={"eval_images": 50}))
    left = core_seconds_left([ended(seen, 3.0), long], IMAGES)
    assert left == pytest.approx(3.0 * (9 + LONG / (50 * (search.spec.data.resolution**2 + PIXELS))))


def test_trials_cost_what_those_before_them_cost_for_as_many_images_and_pixels(parts: list[Progressed]) -> None:
    search, long, longer = parts
    half = ended(search, 3.0, count=5)
    assert core_seconds_left([half], IMAGES) == pytest.approx(5 * 3.0)
    done = [ended(half, 3.0, count=10), ended(long, LONG / EPOCH * 7)]
    assert core_seconds_left([*done, longer], IMAGES) == pytest.approx(3 * 7)
    running = replace(longer, found=[cost(0, 10.0, "running")], epochs={0: 2})
    assert core_seconds_left([*done, running], IMAGES) == pytest.approx(5), "its own epochs are the best to judge by"
    assert core_seconds_left([*done, ended(longer, 15.0)], IMAGES) == 0


def test_epochs_with_frozen_statistics_are_counted_as_the_cheaper_ones_that_they_are(tmp_path: Path) -> None:
    frozen = 'frozen_statistics = true\nlr_scale = 0.01\n[[searches]]\nname = "longer"'
    study = write_study(tmp_path / "f.toml", THREE.replace('[[searches]]\nname = "longer"', frozen), base=DATA)
    _, long, _ = map(not_begun, read_parts(study))
    begun = replace(long, found=[cost(0, 10.0, "running")], epochs={0: 2})
    assert long.spec.total_epochs == 3
    assert core_seconds_left([begun], IMAGES) == pytest.approx(10.0 * FROZEN * (LONG - 2 * EPOCH) / (2 * EPOCH))


def test_a_network_that_is_pruned_further_is_expected_to_cost_less(tmp_path: Path) -> None:
    smaller = '[[searches]]\nname = "smaller"\nspace = { target_mflops = 20 }\n[[searches]]\nname = "longer"'
    study = write_study(tmp_path / "s.toml", THREE.replace('[[searches]]\nname = "longer"', smaller), base=DATA)
    search, long, again, longer = map(not_begun, read_parts(study))
    done = [ended(search, 3.0, count=10), ended(long, LONG / EPOCH * 7)]
    left = core_seconds_left([*done, again, longer], IMAGES)
    assert left == pytest.approx((10 * 3.0 + 3 * 7) * (20 + MFLOPS) / (100 + MFLOPS))


def test_what_is_to_come_is_judged_by_all_trainings_by_their_work_and_the_later_ones_more(tmp_path: Path) -> None:
    longest = '[[searches]]\nname = "longest"\ntrain_only = true\ntrain = { epochs = 30, resolution = 16 }'
    study = write_study(tmp_path / "l.toml", THREE + longest, base=DATA)
    search, long, longer, last = map(not_begun, read_parts(study))
    done = [ended(search, 3.0, count=10), ended(long, 10.0)]
    left = core_seconds_left([*done, ended(longer, 20.0), last], IMAGES)
    assert left == pytest.approx(30 * EPOCH * (FADES * 10.0 + 20.0) / (FADES * LONG + 3 * EPOCH))


@pytest.mark.slow
def test_status_counts_the_epochs_of_a_trial_under_way(invoke: Invoke, write_study: WriteStudy, tmp_path: Path) -> None:
    study = write_study("trials = 1\ntrain.epochs = 3\ntrain.images_per_epoch = 640")
    with running("run", study, "--runs", tmp_path, "--workers", 1) as process:
        wait_for(lambda: list(tmp_path.glob("tiny/trials/0000/metrics.csv")), process)
        process.kill()
    told = invoke("status", study, "--runs", tmp_path)
    assert re.search(r"trial   0  running .* [1-9]\d* s  [1-3] of 3 epochs\n", told)
    assert re.search(r"1 running; [1-9]\d* s of work", told)
    (record,) = status(invoke, study, tmp_path)["records"]
    assert record["state"] == "running" and record["cpu_seconds"] > 0


def test_a_study_that_only_time_ends_has_no_number_of_trials(parts: list[Progressed]) -> None:
    endless: StudySpec = parts[0].spec.model_copy(update={"trials": None})
    assert core_seconds_left([Progressed(endless, [cost(0, 1.0)])], IMAGES) is None


def test_epochs_on_disk_are_counted_without_the_untrained_evaluation() -> None:
    history = [{"epoch": n, "wall_seconds": 1.5, "cpu_seconds": 2.5, "loss": 1.0} for n in (1, 2)]
    assert epochs_in(metrics_csv(history, {"accuracy": 0.1, "cpu_seconds": 9.0})) == (2, Cost(3.0, 5.0))
    assert epochs_in(metrics_csv([], None)) == (0, Cost())


def test_what_is_to_come_is_said_in_a_unit_that_fits_and_nothing_of_what_is_unknown() -> None:
    said = {3600.0: "1.0 core-hours", 3599.0: "60.0 core-minutes", 60.0: "1.0 core-minutes", 59.0: "59 core-seconds"}
    for seconds, text in said.items():
        assert to_come(seconds) == f"To come: about {text}."
    assert to_come(None) == to_come(0.0) == ""


@pytest.mark.slow
def test_a_finished_study_has_nothing_to_come(invoke: Invoke, finished: Finished) -> None:
    study, runs, _ = finished
    assert status(invoke, study, runs)["core_seconds_left"] == 0
    assert "To come" not in invoke("status", study, "--runs", runs)

"""Constraints, absolute and relative to the dense network, and the goal by which a trial is the best."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from processes import Invoke
from records import status
from search.study.constraints import ConstraintsSection, excesses, size_mb
from search.study.score import fitness
from search.study.spec import read_study
from studies import write_study


def test_of_an_absolute_and_a_relative_limit_the_stricter_counts() -> None:
    both = ConstraintsSection(max_mflops=90, max_mflops_ratio=0.25, min_accuracy=0.9, max_accuracy_drop=0.01)
    assert both.limits(320, 0.95) == {"max_mflops": 80, "min_accuracy": pytest.approx(0.94)}
    assert both.limits(400, 0.905) == {"max_mflops": 90, "min_accuracy": 0.9}
    assert ConstraintsSection().limits(320, 0.95) == {}


def test_excess_is_counted_for_what_is_known() -> None:
    limits = {"max_mflops": 80.0, "min_mflops": 20.0, "max_size_mb": 1.0, "min_accuracy": 0.9}
    assert excesses(limits, {"mflops": 90.0, "accuracy": None}) == {"max_mflops": 10, "min_mflops": -70}
    assert excesses(limits, {"size_mb": size_mb(500_000)}) == {"max_size_mb": 1.0}
    assert excesses(limits, {"accuracy": 0.8}) == {"min_accuracy": pytest.approx(0.1)}


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("", "score"),
        ('objectives = ["mflops", "accuracy"]', "score"),
        ('objectives = ["mflops", "accuracy"]\nbest_by = "mflops"', "mflops"),
        ('objectives = ["accuracy"]', "accuracy"),
        ('objectives = ["accuracy", "nonzero_bytes"]', "nonzero_bytes"),
    ],
)
def test_the_goal_of_a_study(tmp_path: Path, text: str, goal: str) -> None:
    assert read_study(write_study(tmp_path / "a.toml", text)).goal == goal


def test_the_best_has_the_highest_fitness_whatever_the_goal() -> None:
    values = {"score": -3.0, "accuracy": 0.9, "mflops": 50.0}
    assert [fitness(goal, values) for goal in values] == [-3.0, 0.9, -50.0]


@pytest.mark.slow
def test_a_study_without_the_course_s_score_exports_the_smallest_network_that_loses_little(
    tmp_path: Path, invoke: Invoke
) -> None:
    study = write_study(
        tmp_path / "mine.toml",
        """
        objectives = ["mflops", "accuracy"]
        best_by = "mflops"
        trials = 5
        [constraints]
        max_accuracy_drop = 0.9
        max_mflops_ratio = 0.97
        """,
    )
    runs = tmp_path / "runs"
    result = json.loads(invoke("run", study, "--runs", runs, "--json"))
    found = status(invoke, study, runs)["records"]
    dense = json.loads((runs / "mine" / "dense.json").read_text())["figures"]
    assert dense["accuracy"] is not None
    for r in found:
        if r["state"] == "done":
            assert r["constraints"]["min_accuracy"] == pytest.approx(dense["accuracy"] - 0.9 - r["accuracy"])
        over = r["constraints"]["max_mflops"] > 0
        assert over == (r["mflops"] > 0.97 * dense["mflops"]) == (r["state"] == "skipped")
    good = [r["mflops"] for r in found if r["state"] == "done" and r["feasible"]]
    assert result["best"]["mflops"] == min(good)
    told = invoke("status", study, "--runs", runs)
    assert "score" not in told and "MFLOPs" in told

"""Scores against the work that they took."""

from __future__ import annotations

from dataclasses import replace

import pytest

from records import FOUND, made
from search.report import figures as plots
from search.results.incumbent import score_over_time, standings


def test_a_race_counts_all_work_and_tells_what_was_foreseen_from_what_was_reached() -> None:
    looks = [replace(r, predicted=0.9, predicted_std=0.01, cpu_seconds=4.0) for r in FOUND[:2]]
    over = made(6, 10, 0.99, feasible=False)
    marks = score_over_time([*looks, FOUND[3], replace(FOUND[0], wall_seconds=0.0), over, FOUND[2]])
    assert [mark.core_hours * 3600 for mark in marks] == pytest.approx([4, 8, 10, 12, 14])
    predicted = [looks[0].score, max(r.score for r in looks if r.score)]
    assert [mark.predicted for mark in marks] == [
        *predicted,
        predicted[1],
        predicted[1],
        predicted[1],
    ]
    assert [mark.reached for mark in marks] == [None, None, None, None, FOUND[2].score]
    studies = {"a": looks, "b": [*looks, FOUND[2]]}
    curves = {name: score_over_time(found) for name, found in studies.items()}
    assert len(plots.studies_figure(curves, studies).data) == 2 + 1 + 2


def test_studies_are_held_against_the_last_one_named() -> None:
    goal, better, worse = (
        replace(made(0, mflops, accuracy), cpu_seconds=3600) for mflops, accuracy in ((30, 0.9), (26, 0.91), (60, 0.9))
    )
    found = {"quick": [worse, better], "slow": [worse], "plain": [worse, worse, worse, goal]}
    told = standings({name: score_over_time(trials) for name, trials in found.items()})
    assert told == [
        f"quick: reached {better.score:.2f} in 2.00 core-hours; the {goal.score:.2f} of plain after 2.00, "
        "2.0 times as fast as its 4.00.",
        f"slow: reached {worse.score:.2f} in 1.00 core-hours; it did not reach the {goal.score:.2f} of plain.",
        f"plain: reached {goal.score:.2f} in 4.00 core-hours.",
    ]
    assert standings({"a": [], "b": []}) == ["a: no work yet.", "b: no work yet."]

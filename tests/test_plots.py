"""Figures are made from records alone, and show what the records say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.plots import history_figure, importances_figure, pareto_figure, report
from search.results import Record, best, headline, pareto, summary
from search.score import ScoreRule
from search.study_file import StudySpec

RULE = ScoreRule()


def made(number: int, mflops: float, accuracy: float, *, state: str = "done", feasible: bool = True) -> Record:
    done = state == "done"
    return Record(
        number=number,
        state=state,
        sampled={"cut.stage1": 0.5, "importance": "l1 <b>"},
        mflops=mflops,
        params=1000,
        accuracy=accuracy if done else None,
        score=RULE(mflops, accuracy) if done else None,
        mflops_removed=0.5,
        params_removed=0.6,
        seconds=2.0,
        feasible=feasible,
        same_as=None,
        reason="" if done else "asha after epoch 1 of 3",
    )


FOUND = [
    made(0, 150, 0.93),
    made(1, 90, 0.9),
    made(2, 160, 0.92),
    made(3, 60, 0.5, state="stopped"),
    made(4, 40, 0.91, feasible=False),
]


def test_the_pareto_set_is_what_no_trial_beats_in_both() -> None:
    assert [r.number for r in pareto(FOUND)] == [4, 0]
    assert [r.number for r in pareto(FOUND[:4])] == [1, 0]


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 50)), max_size=30))
def test_pareto_by_definition(points: list[tuple[int, int]]) -> None:
    found = [made(i, mflops, accuracy / 50) for i, (mflops, accuracy) in enumerate(points)]
    front = {(r.mflops, r.accuracy) for r in pareto(found)}
    expected = {
        (a.mflops, a.accuracy)
        for a in found
        if not any(
            b.mflops <= a.mflops and b.accuracy >= a.accuracy and (b.mflops, b.accuracy) != (a.mflops, a.accuracy)
            for b in found
        )
    }
    assert front == expected


def test_the_best_keeps_to_the_limits() -> None:
    top = best(FOUND)
    assert top is not None
    assert top.number == 1
    assert best([]) is None
    assert summary(FOUND)["trials"] == {"done": 4, "stopped": 1, "skipped": 0, "failed": 0, "running": 0, "waiting": 0}
    assert summary(FOUND)["seconds"] == 10
    assert "trial 1" in headline(FOUND)
    assert "No finished trial" in headline([])


def test_the_pareto_figure_shows_trials_front_best_and_equal_scores() -> None:
    traces = {trace.name: trace for trace in pareto_figure(FOUND, RULE).data}
    assert list(traces["trials"].x) == [150, 90, 160, 40]
    assert list(traces["Pareto front"].y) == [91, 93]
    assert list(traces["best: trial 1, score 22.94"].x) == [90]
    lines = [trace for name, trace in traces.items() if name.startswith("score ")]
    assert len(lines) >= 3
    for line in lines:
        score = float(line.name.removeprefix("score "))
        for mflops, accuracy in zip(line.x, line.y, strict=True):
            assert RULE(mflops, accuracy / 100) == pytest.approx(score)


def test_history_and_importances() -> None:
    points, line = history_figure(FOUND).data
    assert list(points.x) == [0, 1, 2, 4]
    assert list(line.y) == sorted(line.y)
    assert max(line.y) == best(FOUND).score  # type: ignore[union-attr]
    (bars,) = importances_figure({"cut.stage1": 0.2, "importance": 0.7}).data
    assert list(bars.y) == ["cut.stage1", "importance"]


@pytest.mark.parametrize("found", [FOUND, FOUND[:1], []])
def test_every_study_has_a_report(found: list[Record]) -> None:
    spec = StudySpec(name="tiny", about="5 < 6", trials=3)
    page = report(spec, found, {"importance": 1.0} if found else {})
    assert "5 &lt; 6" in page
    assert "l1 <b></td>" not in page
    assert page.count("Plotly.newPlot") == (3 if found else 2)

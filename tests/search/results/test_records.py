"""What a study's records say as a whole."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from records import FOUND, made
from search.results.records import best, headline, pareto, summary


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
    assert summary(FOUND)["wall_seconds"] == 10
    assert "trial 1" in headline(FOUND)
    assert "No trial has finished yet" in headline([])

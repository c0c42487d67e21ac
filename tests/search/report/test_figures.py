"""Figures are made from records alone, and show what the records say."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruner.network.count import layers
from records import DENSE, HALF, RULE, made
from search.cost import Cost
from search.report import figures as plots
from search.report.figures import history_figure, importances_figure, pareto_figure
from search.report.page import comparison_report, network_figures, study_figures, study_report
from search.results.incumbent import score_over_time, standings
from search.results.records import Record, best, headline, pareto, summary
from search.results.table import score_table, trials_table
from search.study.spec import StudySpec

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
    assert summary(FOUND)["wall_seconds"] == 10
    assert "trial 1" in headline(FOUND)
    assert "No trial has finished yet" in headline([])


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
    (bars,) = importances_figure({"pruning_ratio.stage1": 0.2, "importance": 0.7}).data
    assert list(bars.y) == ["pruning_ratio.stage1", "importance"]


@pytest.mark.parametrize("found", [FOUND, FOUND[:1], []])
def test_every_study_has_a_report(found: list[Record]) -> None:
    spec = StudySpec(name="tiny", about="5 < 6", trials=3)
    figures = study_figures(spec, found, {"importance": 1.0} if found else {}, DENSE)
    page = study_report(spec, found, figures)
    assert "5 &lt; 6" in page
    assert "l1 <b></td>" not in page
    assert page.count("Plotly.newPlot") == len(figures) == (8 if found else 2)
    for name, figure in figures.items():  # a title, and a name on every axis
        assert figure.layout.title.text, name
        assert figure.layout.xaxis.title.text and figure.layout.yaxis.title.text, name


def test_the_dense_network_is_marked_or_named_at_the_edge() -> None:
    near = [trace for trace in pareto_figure(FOUND, RULE, DENSE).data if trace.name == "dense network"]
    assert [list(trace.x) for trace in near] == [[DENSE.mflops]]
    far = pareto_figure([made(0, 26, 0.92)], RULE, DENSE)
    assert not [trace for trace in far.data if trace.name == "dense network"]
    assert any("319 MFLOPs" in note.text for note in far.layout.annotations)


def test_operations_by_layer_and_by_map_size_add_up_to_the_network() -> None:
    total = sum(layer.operations for layer in layers(HALF, 10)) / 1e6
    dense, half = plots.layers_figure(HALF, DENSE, "half").data
    assert sum(dense.y) == pytest.approx(DENSE.mflops)
    assert sum(half.y) == pytest.approx(total)
    dense, half = plots.map_sizes_figure(HALF, DENSE, "half").data
    assert list(half.x) == ["112", "56", "28", "14", "7"]
    assert sum(half.y) == pytest.approx(total, abs=0.02)  # but for the classifier
    assert half.text[3].endswith(f"−{1 - half.y[3] / dense.y[3]:.0%}")


def test_kept_widths_learning_curves_and_what_retraining_brings_back() -> None:
    dense, half = plots.widths_figure(HALF, DENSE, "half").data
    assert len(half.x) == len(set(half.x)) == 25
    assert all(kept == before // 2 for kept, before in zip(half.y, dense.y, strict=True))
    curves = plots.curves_figure(FOUND).data
    assert list(curves[-1].y) == [20, 40, 90]  # the best one, drawn last
    assert curves[-1].name == "best: trial 1"
    _, before, after = plots.before_after_figure(FOUND).data
    assert set(before.y) == {20}
    assert list(after.y) == [93, 90, 92, 91]
    assert network_figures(None, DENSE) == {} == network_figures(FOUND[0], None)


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
    assert len(plots.studies_figure({"a": looks, "b": [*looks, FOUND[2]]}).data) == 2 + 1 + 2


def test_work_is_of_processors_also_of_children_and_waiting_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    began, later = Cost.now(), time.perf_counter() + 3600
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: later)  # an hour has passed in which nobody did anything
        waited = Cost.now() - began
    assert waited.cpu_seconds < 60 < 3600 <= waited.wall_seconds
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True)
    assert (Cost.now() - began).cpu_seconds >= 0.4


def test_variants_are_drawn_against_work() -> None:
    done = [replace(r, sampled={"variant": "whole" if i else "no logits"}) for i, r in enumerate(FOUND[:2])]
    first, second = plots.variants_figure(done).data
    assert (first.name, second.name) == ("no logits", "whole")
    assert list(first.x) == [0.5 / 60, 1 / 60, 2 / 60]
    assert list(second.y) == [20, 40, 100 * (FOUND[1].accuracy or 0)]


def test_studies_are_held_against_the_last_one_named() -> None:
    goal, better, worse = (
        replace(made(0, mflops, accuracy), cpu_seconds=3600) for mflops, accuracy in ((30, 0.9), (26, 0.91), (60, 0.9))
    )
    told = standings({"quick": [worse, better], "slow": [worse], "plain": [worse, worse, worse, goal]})
    assert told == [
        f"quick: reached {better.score:.2f} in 2.00 core-hours; the {goal.score:.2f} of plain after 2.00, "
        "2.0 times as fast as its 4.00.",
        f"slow: reached {worse.score:.2f} in 1.00 core-hours; it did not reach the {goal.score:.2f} of plain.",
        f"plain: reached {goal.score:.2f} in 4.00 core-hours.",
    ]
    assert standings({"a": [], "b": []}) == ["a: no work yet.", "b: no work yet."]


def test_tables_say_what_the_records_say() -> None:
    rows = list(csv.DictReader(io.StringIO(trials_table(FOUND))))
    assert [int(row["number"]) for row in rows] == [r.number for r in FOUND]
    assert [row["accuracy"] for row in rows] == [str(r.accuracy) if r.accuracy is not None else "" for r in FOUND]
    assert {row["importance"] for row in rows} == {"l1 <b>"}
    rows = list(csv.DictReader(io.StringIO(score_table({"a": FOUND, "b": FOUND[:1]}))))
    assert [row["study"] for row in rows] == ["a"] * len(FOUND) + ["b"]
    assert float(rows[-1]["reached"]) == FOUND[0].score


def test_studies_are_told_apart_by_more_than_colour() -> None:
    figure = plots.studies_figure({"a": FOUND, "b": FOUND[:2]})
    fronts = figure.data[::2]
    assert len({(t.line.dash, t.marker.symbol) for t in fronts}) == 2
    page = comparison_report({"a": FOUND, "<b>": FOUND[:2]})
    assert "&lt;b&gt;: reached" in page

"""Figures are made from records alone, and show what the records say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pruner.network.count import layers
from records import DENSE, FOUND, HALF, RULE, made
from search.report import figures as plots
from search.report.figures import history_figure, importances_figure, pareto_figure
from search.report.page import comparison_report, network_figures, study_figures, study_report
from search.results.incumbent import score_over_time
from search.results.records import Record, best
from search.study.spec import StudySpec


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


def test_variants_are_drawn_against_work() -> None:
    done = [replace(r, sampled={"variant": "whole" if i else "no logits"}) for i, r in enumerate(FOUND[:2])]
    first, second = plots.variants_figure(done).data
    assert (first.name, second.name) == ("no logits", "whole")
    assert list(first.x) == [0.5 / 60, 1 / 60, 2 / 60]
    assert list(second.y) == [20, 40, 100 * (FOUND[1].accuracy or 0)]


def test_studies_are_told_apart_by_more_than_colour() -> None:
    studies = {"a": FOUND, "<b>": FOUND[:2]}
    curves = {name: score_over_time(found) for name, found in studies.items()}
    figure = plots.studies_figure(curves, studies)
    fronts = figure.data[::2]
    assert len({(t.line.dash, t.marker.symbol) for t in fronts}) == 2
    assert "&lt;b&gt;: reached" in comparison_report(curves, figure)
    alone = plots.studies_figure(curves, {}).data
    assert [t.name for t in alone if t.showlegend] == ["a", "<b>"], "as from a table, without the trials"

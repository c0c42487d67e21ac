"""Studies from Python: what a notebook does."""

from __future__ import annotations

import csv
from pathlib import Path

import optuna
import pytest

import search
from pruner.errors import InputError
from studies import Finished, write_study


@pytest.mark.slow
def test_three_lines_run_a_study_and_give_its_trials_as_a_table(tmp_path: Path) -> None:
    study, runs = write_study(tmp_path / "mine.toml"), tmp_path / "runs"
    result = search.run(study, runs=runs, changes={"trials": 2})
    frame = search.records(study, runs=runs)
    assert result.file.is_file() and result.report.is_file() and 0 <= result.test["accuracy"] <= 1
    assert list(frame.index) == [0, 1] and set(frame["state"]) == {"done"}
    assert frame["score"].max() == pytest.approx(result.best["score"])
    assert frame["params.pruning_ratio.stage3"].between(0.1, 0.8).all()
    with pytest.raises(InputError, match=r"train\.epochs was 2, is 7"):
        search.run(study, runs=runs, changes={"train.epochs": 7})


@pytest.mark.slow
def test_optuna_s_own_functions_work_on_the_same_study(finished: Finished) -> None:
    study, runs, _ = finished
    opened = search.optuna_study(study, runs=runs)
    frame = search.records(study, runs=runs)
    assert opened.best_value == pytest.approx(frame["score"].max())
    assert optuna.visualization.plot_slice(opened).data
    assert {"pareto", "history", "layers"} <= search.figures(study, runs=runs).keys()


@pytest.mark.slow
def test_a_trial_leaves_its_epochs_as_a_table(finished: Finished) -> None:
    study, runs, _ = finished
    records = search.records(study, runs=runs)
    for path in sorted((runs / study.stem / "trials").glob("*/metrics.csv")):
        rows = list(csv.DictReader(path.open()))
        assert [row["epoch"] for row in rows] == ["0", "1", "2"]
        assert all(float(row["loss"]) > 0 and float(row["learning_rate"]) > 0 for row in rows[1:])
        number = int(path.parent.name)
        assert float(rows[0]["holdout_accuracy"]) == pytest.approx(records.loc[number, "accuracy_before"])
    assert len(list((runs / study.stem / "trials").glob("*/metrics.csv"))) == len(records)


def test_what_cannot_be_used_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not begun"):
        search.records(write_study(tmp_path / "mine.toml"), runs=tmp_path / "runs")
    with pytest.raises(InputError, match=r"gone\.toml: cannot be read"):
        search.run(tmp_path / "gone.toml", runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    with pytest.raises(AttributeError, match="no attribute 'runs'"):
        search.runs  # noqa: B018

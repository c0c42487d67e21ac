"""Tables of trials."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import pytest

from processes import Command, Invoke
from pruner.errors import InputError
from records import FOUND
from search.exit_status import ExitStatus
from search.results.incumbent import score_over_time
from search.results.table import read_score_table, score_table, trials_table


def test_tables_say_what_the_records_say() -> None:
    rows = list(csv.DictReader(io.StringIO(trials_table(FOUND))))
    assert [int(row["number"]) for row in rows] == [r.number for r in FOUND]
    assert [row["accuracy"] for row in rows] == [str(r.accuracy) if r.accuracy is not None else "" for r in FOUND]
    assert {row["importance"] for row in rows} == {"l1 <b>"}
    curves = {"a": score_over_time(FOUND), "b": score_over_time(FOUND[:1])}
    rows = list(csv.DictReader(io.StringIO(score_table(curves))))
    assert [row["study"] for row in rows] == ["a"] * len(FOUND) + ["b"]
    assert float(rows[-1]["reached"]) == FOUND[0].score


def test_a_table_of_studies_can_be_read_again(tmp_path: Path) -> None:
    looks = [replace(r, predicted=0.9, predicted_std=0.01) for r in FOUND[:1]]
    curves = {"a, or so": score_over_time([*looks, *FOUND]), "b": score_over_time(FOUND[:1])}
    table = tmp_path / "studies.csv"
    table.write_text(score_table(curves))
    again = read_score_table(table)
    assert list(again) == list(curves)
    for name, marks in curves.items():
        assert [(m.predicted, m.reached) for m in again[name]] == [(m.predicted, m.reached) for m in marks]
        assert [m.core_hours for m in again[name]] == pytest.approx([m.core_hours for m in marks], abs=5e-5)


def test_a_comparison_is_drawn_again_from_its_table(invoke: Invoke, tmp_path: Path) -> None:
    table, again = tmp_path / "studies.csv", tmp_path / "again.csv"
    table.write_text(score_table({"fast": score_over_time(FOUND), "slow": score_over_time(FOUND[:1])}))
    told = invoke("plot", table, "--out", tmp_path / "r.html", "--table", again)
    assert told.startswith("fast: reached") and "slow: reached" in told
    assert again.read_text() == table.read_text()
    assert "best score so far" in (tmp_path / "r.html").read_text()


def test_two_curves_of_one_name_are_refused(command: Command, tmp_path: Path) -> None:
    old, new = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text(score_table({"mine": score_over_time(FOUND[:1])}))
    new.write_text(score_table({"mine": score_over_time(FOUND)}))
    done = command("plot", old, new, "--out", tmp_path / "r.html")
    assert done.returncode == ExitStatus.BAD_INPUT and "new.csv: mine has other results than before" in done.stderr
    assert not (tmp_path / "r.html").exists()


HEAD = b"study,core_hours,predicted,reached\n"


@pytest.mark.parametrize("content", [b"", b"number,state\n", b"\xff\xfe", HEAD + b"a,x,,\n", HEAD + b"a,1\n", HEAD])
def test_what_is_no_table_of_studies_is_refused(tmp_path: Path, content: bytes) -> None:
    table = tmp_path / "studies.csv"
    table.write_bytes(content)
    with pytest.raises(InputError, match=r"studies\.csv: no table of studies"):
        read_score_table(table)

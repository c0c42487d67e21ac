"""Tables of trials."""

from __future__ import annotations

import csv
import io

from records import FOUND
from search.results.table import score_table, trials_table


def test_tables_say_what_the_records_say() -> None:
    rows = list(csv.DictReader(io.StringIO(trials_table(FOUND))))
    assert [int(row["number"]) for row in rows] == [r.number for r in FOUND]
    assert [row["accuracy"] for row in rows] == [str(r.accuracy) if r.accuracy is not None else "" for r in FOUND]
    assert {row["importance"] for row in rows} == {"l1 <b>"}
    rows = list(csv.DictReader(io.StringIO(score_table({"a": FOUND, "b": FOUND[:1]}))))
    assert [row["study"] for row in rows] == ["a"] * len(FOUND) + ["b"]
    assert float(rows[-1]["reached"]) == FOUND[0].score

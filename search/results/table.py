"""Studies as CSV tables for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from search.results.incumbent import score_over_time
from search.results.records import Record

_COLUMNS = ("number", "state", "mflops", "params", "accuracy_before", "accuracy", "predicted", "predicted_std", "score",
            "nonzero_bytes", "latency_ms", "wall_seconds", "cpu_seconds", "reason")  # fmt: skip


def trials_table(found: Sequence[Record]) -> str:
    """CSV with a row for every trial; the columns are the figures, then the sampled parameters."""
    names = list(dict.fromkeys(name for r in found for name in r.sampled))
    rows = [
        [*(getattr(r, column) for column in _COLUMNS), *(r.sampled.get(name) for name in names)] for r in found
    ]  # fmt: skip
    return _csv([*_COLUMNS, *names], rows)


def score_table(studies: Mapping[str, Sequence[Record]]) -> str:
    """CSV with a row for every trial of every study that cost time (see `search.results.incumbent`)."""
    rows = [
        [name, round(mark.core_hours, 4), mark.predicted, mark.reached]
        for name, found in studies.items()
        for mark in score_over_time(found)
    ]
    return _csv(["study", "core_hours", "predicted", "reached"], rows)


def _csv(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows(rows)
    return text.getvalue()

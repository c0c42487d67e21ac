"""Tables: of trials and studies, and any rows as CSV, text, Markdown or HTML."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from pruner.errors import InputError
from search.results.incumbent import Curves, Mark
from search.results.records import Record

COLUMNS = ("number", "state", "mflops", "params", "accuracy_before", "accuracy", "predicted", "predicted_std", "score",
            "nonzero_bytes", "latency_ms", "wall_seconds", "cpu_seconds", "reason")  # fmt: skip
"""Of a trial: what a table of trials shows."""
_OF_SCORES = ["study", "core_hours", "predicted", "reached"]


def trials_table(found: Sequence[Record]) -> str:
    """CSV with a row for every trial; the columns are the figures, then the sampled parameters."""
    names = list(dict.fromkeys(name for r in found for name in r.sampled))
    rows = [
        [*(getattr(r, column) for column in COLUMNS), *(r.sampled.get(name) for name in names)] for r in found
    ]  # fmt: skip
    return csv_table([*COLUMNS, *names], rows)


def score_table(curves: Curves) -> str:
    """CSV with a row for every mark of every study."""
    rows = [
        [name, round(mark.core_hours, 4), mark.predicted, mark.reached]
        for name, marks in curves.items()
        for mark in marks
    ]
    return csv_table(_OF_SCORES, rows)


def read_score_table(path: Path) -> dict[str, list[Mark]]:
    """The marks of the studies in a file that `score_table` made.

    Raises InputError if it is no such file.
    """
    found: dict[str, list[Mark]] = {}
    try:
        with path.open(newline="") as file:
            lines = csv.reader(file)
            if next(lines, None) != _OF_SCORES:
                raise ValueError(f"the first line should be {','.join(_OF_SCORES)}")
            for name, hours, *scores in lines:
                predicted, reached = (float(score) if score else None for score in scores)
                found.setdefault(name, []).append(Mark(float(hours), predicted, reached))
        if not found:
            raise ValueError("it has no rows")
    except ValueError as error:  # also bytes that are no text
        raise InputError(f"{path}: no table of studies, as `plot --table` writes it for several ({error})") from error
    return found


def csv_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """CSV, for spreadsheets and scripts."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows(rows)
    return text.getvalue()


def text_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns for a terminal: the first to the left, the others to the right."""
    lines = [titles, *rows]
    wide = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ([line[0].ljust(wide[0]), *map(str.rjust, line[1:], wide[1:])] for line in lines)
    return "\n".join("  ".join(cells) for cells in aligned)


def markdown_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def html_table(titles: Sequence[str], rows: Sequence[Sequence[str]], marked: int | None = None) -> str:
    """An HTML table; the row in the place `marked` has the class `best`."""
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = []
    for place, row in enumerate(rows):
        mark = ' class="best"' if place == marked else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"

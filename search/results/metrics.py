"""The epochs of a trial as a table that other programs read."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence

from search.cost import Cost
from search.results.table import csv_table

_METRICS = {
    "epoch": "epoch", "resolution": "resolution", "learning_rate": "learning_rate", "loss": "loss",
    "training_accuracy": "accuracy", "holdout_accuracy": "holdout", "wall_seconds": "wall_seconds",
    "cpu_seconds": "cpu_seconds",
}  # fmt: skip
"""Column -> key of a trial's history."""


def metrics_of(history: Sequence[Mapping[str, float]], before: Mapping[str, float] | None) -> list[dict[str, float]]:
    """Column -> value for every epoch; before them one of epoch 0 for the untrained network if it was evaluated."""
    start = [{"epoch": 0, "holdout": before["accuracy"], "cpu_seconds": before["cpu_seconds"]}] if before else []
    return [{name: row[key] for name, key in _METRICS.items() if key in row} for row in (*start, *history)]


def metrics_csv(history: Sequence[Mapping[str, float]], before: Mapping[str, float] | None) -> str:
    """The rows of `metrics_of` as CSV."""
    rows = [[row.get(name, "") for name in _METRICS] for row in metrics_of(history, before)]
    return csv_table(list(_METRICS), [[f"{v:.6g}" if isinstance(v, float) else v for v in row] for row in rows])


def epochs_in(text: str) -> tuple[int, Cost]:
    """How many epochs such a table has, and what they cost."""
    rows = [row for row in csv.DictReader(text.splitlines()) if row["epoch"] != "0"]
    costs = (Cost(float(row["wall_seconds"]), float(row["cpu_seconds"])) for row in rows)
    return len(rows), sum(costs, Cost())

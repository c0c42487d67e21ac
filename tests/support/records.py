"""What a study's trials gave: asked of the command, compared, or made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from processes import Invoke
from search.results.records import Dense, Record
from search.study.score import ScoreRule

RULE = ScoreRule()
DENSE_WIDTHS = {
    f"stage{stage}.{kind}": width
    for stage, hidden, out in (
        (1, {1: 32}, 16), (2, {2: 96, 3: 144}, 24), (3, {4: 144, 5: 192, 6: 192}, 32),
        (4, {7: 192, 8: 384, 9: 384, 10: 384}, 64), (5, {11: 384, 12: 576, 13: 576}, 96),
        (6, {14: 576, 15: 960, 16: 960}, 160), (7, {17: 960}, 320),
    )
    for kind, width in {**{f"hidden.{block}": width for block, width in hidden.items()}, "output": out}.items()
} | {"head": 1280}  # fmt: skip
DENSE = Dense(mflops=318.969098, params=2236682, accuracy=0.97, classes=10, widths=DENSE_WIDTHS)
HALF = {name: width // 2 for name, width in DENSE_WIDTHS.items()}
"""The widths of a network with half of all channels."""


def status(invoke: Invoke, study: Path, runs: Path) -> dict[str, Any]:
    return json.loads(invoke("status", study, "--runs", runs, "--json"))


def figures(study: dict[str, Any]) -> list[dict[str, Any]]:
    """What a rerun must give again: everything but who did it, and how long it took."""
    timed = ("wall_seconds", "cpu_seconds", "cost", "worker", "latency_ms")
    return [{key: value for key, value in record.items() if key not in timed} for record in study["records"]]


def made(number: int, mflops: float, accuracy: float, *, state: str = "done", feasible: bool = True) -> Record:
    """A record of a trial that nobody ran."""
    done = state == "done"
    return Record(
        number=number,
        state=state,
        sampled={"pruning_ratio.stage1": 0.5, "importance": "l1 <b>"},
        mflops=mflops,
        params=1000,
        accuracy=accuracy if done else None,
        accuracy_before=0.2,
        curve=(0.4, accuracy),
        cost=(0.5, 1.0, 2.0),
        latency_ms=3.0,
        widths=HALF,
        score=RULE(mflops, accuracy) if done else None,
        nonzero_bytes=int(1e6 * (1 + number)),
        fitness=RULE(mflops, accuracy) if done else None,
        mflops_removed=0.5,
        params_removed=0.6,
        wall_seconds=2.0,
        cpu_seconds=2.0,
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
"""Records of every kind."""

"""What trials under way have done so far: the database has a trial's cost only when it ends, the disk every epoch's."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, replace

from search.results.metrics import epochs_in
from search.results.records import Record
from search.storage.folder import StudyFolder


def under_way(found: Sequence[Record], folder: StudyFolder) -> tuple[dict[int, int], list[Record]]:
    """How many epochs each running trial has on disk, where this machine has its files, and `found` with their cost."""
    done: dict[int, int] = {}
    counted = list(found)
    for place, r in enumerate(found):
        table = folder.trial(r.number).metrics
        if not r.ended and table.exists():
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # damaged: `check` is there to say so
                done[r.number], cost = epochs_in(table.read_text())
                counted[place] = replace(r, **asdict(cost))
    return done, counted

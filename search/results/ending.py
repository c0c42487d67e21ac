"""How a study ended, judged by its trials: is there a network to export, and if not, why not?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.exit_status import ExitStatus, Failed
from search.study.constraints import size_mb

if TYPE_CHECKING:
    from search.results.records import Record


@dataclass(frozen=True, slots=True)
class Ending:
    """The result of a study without a best network."""

    status: ExitStatus
    text: str
    """One sentence."""


_BEGUN = Ending(ExitStatus.DONE, "No trial has finished yet.")


def ending(found: Sequence[Record]) -> Ending | None:
    """Why there is no best trial; None if there is one. Running trials are not judged."""
    ended = [r for r in found if r.ended]
    if any(r.state == "done" and r.feasible for r in ended):
        return None
    if not ended:
        return _BEGUN
    failed = [r for r in ended if r.state == "failed"]
    done = [r for r in ended if r.state == "done"]
    if judged := done or [r for r in ended if r.state == "skipped"]:
        why = f" {_failures(failed)}" if failed else ""
        return Ending(ExitStatus.NONE_FEASIBLE, f"No trial meets the constraints; {_nearest(judged)}.{why}")
    if len(failed) == len(ended):
        return Ending(ExitStatus.ALL_FAILED, _failures(failed, "All " if len(failed) == len(found) else ""))
    stopped = f"{len(ended) - len(failed)} stopped early"
    return Ending(ExitStatus.ALL_FAILED, f"No trial was trained to its end: {stopped}. {_failures(failed)}".strip())


def failure(study: str, found: Sequence[Record]) -> Failed | None:
    """The error with which a command ends if its work on the study has left no network to export."""
    without = ending(found)
    return Failed(f"study {study}: {without.text}", without.status) if without and without.status else None


def _failures(failed: Sequence[Record], all_of: str = "") -> str:
    """How many trials failed, with the most frequent reason; among equally frequent ones, the last."""
    if not failed:
        return ""
    reason, count = Counter(r.reason for r in reversed(failed)).most_common(1)[0]
    if len(failed) == 1:
        return f"{'The only trial' if all_of else 'One trial'} has failed: {reason}."
    most = {1: ", the last because", len(failed): ""}.get(count, f", {count} of them because")
    return f"{all_of}{len(failed)} trials have failed{most}: {reason}."


def _nearest(judged: Sequence[Record]) -> str:
    """Which trial came nearest, which constraint it breaks most, and by how much.

    Constraints have different units, so excesses are compared as shares of the limit.
    """
    worst = {r.number: max(_broken(r), default=(0.0, "")) for r in judged}
    number = min(worst, key=lambda number: (worst[number][0], number))
    return f"trial {number} came nearest: {worst[number][1]}" if worst[number][1] else "it is unknown by how much"


def _broken(r: Record) -> list[tuple[float, str]]:
    """(excess as a share of the limit, the same in words) for every constraint that a trial breaks."""
    found = []
    for name, excess in r.constraints.items():
        if excess <= 0:
            continue
        value, over, form = {
            "max_mflops": (r.mflops, True, "{:.2f} MFLOPs"),
            "min_mflops": (r.mflops, False, "{:.2f} MFLOPs"),
            "max_latency_ms": (r.latency_ms, True, "{:.2f} ms"),
            "max_size_mb": (None if r.params is None else size_mb(r.params), True, "{:.3f} MB"),
            "min_accuracy": (r.expected, False, "an accuracy of {:.4f}"),
        }.get(name, (None, True, "{:g}"))
        side = "over" if over else "under"
        if value is None:
            found.append((excess, f"{excess:g} {side} {name}"))
            continue
        limit = value - excess if over else value + excess
        text = f"{form.format(value)}, {excess:.4g} {side} {name} = {limit:.6g}"
        found.append((excess / max(abs(limit), 1e-9), text))
    return found

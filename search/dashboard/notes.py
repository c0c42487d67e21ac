"""Markdown notes for a study and its trials, as pure functions of records."""

from __future__ import annotations

from collections.abc import Sequence

from pruner.network.structure import GROUPS, STAGES
from search.report.style import short
from search.results.ending import ending
from search.results.records import Dense, Record, best, finished, pareto
from search.study.spec import StudySpec

_MARK = "*Written by prune-search. What you write below the line stays.*\n\n---"


def trial_note(r: Record, dense: Dense | None, *, is_best: bool) -> str:
    """The note of a trial: its figures, widths and sampled parameters."""
    lines = ["**Best so far.**" if is_best else "", _outcome(r)]
    if r.same_as is not None:
        lines.append(f"Its network is that of trial {r.same_as}: the plan and the training are equal.")
    if r.reason:
        lines.append(f"Reason: {r.reason}.")
    if r.widths:
        lines.append(_widths(r, dense))
    lines.append("Sampled: " + ", ".join(f"{name} {short(value)}" for name, value in r.sampled.items()) + ".")
    return "\n\n".join(line for line in lines if line)


def study_note(spec: StudySpec, found: Sequence[Record], dense: Dense | None, study_file: str) -> str:
    """The note of a study: its subject, its progress, its best trial, and how to export that."""
    done, top = finished(found), best(found)
    total = f" of {spec.trials}" if spec.trials else ""
    lines = [f"# {spec.name}", spec.about, f"Looks for: {_objectives(spec)}. Finished trials: {len(done)}{total}."]
    if dense:
        accuracy = "" if dense.accuracy is None else f", {dense.accuracy:.2%} of the holdout"
        lines.append(f"The dense network has {dense.mflops:.1f} MFLOPs, {dense.params:,} parameters{accuracy}.")
    if top:
        front = ", ".join(str(r.number) for r in pareto(found))
        lines += [
            f"**Best: trial {top.number}.** {_outcome(top)}",
            f"Trials that no other beats in both MFLOPs and accuracy: {front}.",
            f"To get its network, run\n\n    prune-search export {study_file}\n\nor download `model.pth` from the "
            f"artifacts of trial {top.number}. Accuracies are on the holdout; `prune-search run` grades the best on "
            "the test images when the study ends.",
        ]
    elif without := ending(found):
        lines.append(without.text)
    return "\n\n".join(line for line in lines if line)


def with_tail(note: str, before: str) -> str:
    """Replace an earlier note, keeping the text that people wrote below its line."""
    _, mark, tail = before.partition(_MARK)
    if before and not mark:  # people wrote all of it
        tail = f"\n\n{before}"
    return f"{note}\n\n{_MARK}{tail}"


def _objectives(spec: StudySpec) -> str:
    return " and ".join(spec.objectives)


def _outcome(r: Record) -> str:
    parts = []
    if r.mflops is not None:
        parts.append(f"{r.mflops:.2f} MFLOPs ({r.mflops_removed or 0:.1%} removed)")
    if r.accuracy is not None:
        before = f", {r.accuracy_before:.1%} before retraining" if r.accuracy_before is not None else ""
        parts.append(f"{r.accuracy:.2%} of the holdout{before}")
    if r.score is not None:
        parts.append(f"score {r.score:.2f}")
    if r.latency_ms is not None:
        parts.append(f"{r.latency_ms:.2f} ms")
    parts.append(f"{r.wall_seconds:,.0f} s of work")
    if not r.feasible:
        parts.append("breaks the study's constraints")
    text = f"{r.state}: " if r.state != "done" else ""
    return f"{text}{', '.join(parts)}."


def _widths(r: Record, dense: Dense | None) -> str:
    """A table of widths: stage, hidden widths by block, output width."""
    rows = ["| stage | hidden widths | output |", "|---|---|---|"]
    for stage in STAGES:
        groups = [group for group in GROUPS if group.stage == stage]
        cells = (
            ", ".join(_of(r, dense, group.name) for group in groups if (group.kind == "output") is output)
            for output in (False, True)
        )
        rows.append(f"| {stage} | {' | '.join(cells)} |")
    return "Channels kept (of):\n\n" + "\n".join(rows)


def _of(r: Record, dense: Dense | None, name: str) -> str:
    return f"{r.widths[name]} ({dense.widths[name]})" if dense else str(r.widths[name])

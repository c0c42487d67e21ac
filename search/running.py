"""Run a study to its end: every part of its file, the workers, the report, the best network's export and grade."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from search.dashboard.server import dashboard
from search.exit_status import ExitStatus, Failed
from search.export.export import finish
from search.options import Options, Web, Workers
from search.patience import waiting_for_space
from search.pipeline.parts import Part
from search.pipeline.relay import ends_before, note, remember, settled, study_of
from search.pipeline.remaining import Progressed, core_seconds_left, not_begun, to_come
from search.pipeline.result import goes_back, handed_over, keep_result
from search.report.page import write_report
from search.results.ending import failure
from search.results.records import headline, records
from search.sampling.samplers import budget
from search.storage.folder import StudyFolder
from search.storage.under_way import under_way
from search.study.changes import Change
from search.terminal.live import LiveTable
from search.terminal.progress import Terminal
from search.trial.data import tell_notes
from search.trial.dense import dense_accuracy
from search.workers.cluster import on_ray
from search.workers.local import LocalLauncher, default_workers
from search.workers.pool import Launcher, run_pool
from search.workers.setup import Setup, set_up, tell_dense
from search.workers.worker import work


@dataclass(frozen=True, slots=True)
class Ended:
    """A study file that has been run to its end."""

    result: Setup
    """The part whose best network is handed over."""
    summary: dict[str, Any]
    """What `search.export.export.finish` wrote."""
    failed: Failed | None
    """The error to end with if there is no network to export."""


def run_parts(
    study_file: Path, parts: Sequence[Part], changes: Sequence[Change], workers: Workers, options: Options,
    web: Web | None, terminal: Terminal,
) -> Ended:  # fmt: skip
    """Set up, run the trials and export, one part after the other; the dashboard runs alongside if `web` is given."""
    passed = {part.name for part, _, _ in settled(parts, options.runs)}
    ready: Setup | None = None
    done: list[Progressed] = []
    opened: list[Setup] = []
    for number, part in enumerate(parts, 1):
        folder = StudyFolder(options.runs / part.name)
        spec = study_of(part, (ready.context.spec, ready.store.study) if ready else None)
        if len(parts) > 1:
            left = ", ".join(later.name for later in parts[number:])
            terminal.line(f"Part {number} of {len(parts)}: {spec.name}{f'; then {left}' if left else ''}.")
        with waiting_for_space(terminal.line), ExitStack() as beside:
            ready = set_up(spec, folder, options, terminal, ready, settled=part.name in passed)
            remember(options.runs, parts[-1].whole, changes)
            if number == 1:
                tell_notes(ready.context.data, terminal)
            if len(parts) > 1:
                note(spec, folder)
            if web:
                address = beside.enter_context(dashboard(ready.shared, spec, folder, study_file, web))
                terminal.line(f"Dashboard: {address}")
            around = (done, [not_begun(later) for later in parts[number:]])
            failed = _work_to_the_end(ready, workers, options, terminal, around, alone=web is None)
            _measure_dense(ready, terminal)
            last = part is parts[-1] or failed
            if not last and (why := ends_before(parts[number], spec, ready.store.study)):
                terminal.line(why)
                last = True
            done.append(Progressed(spec, records(ready.store.study)))
            opened.append(ready)
            if not last:
                write_report(ready.store.study, spec, folder.report)
                continue
            place = handed_over(done, None if failed else part.holdout_flatters)
            if why := goes_back(done, place, part.holdout_flatters):
                terminal.line(why)
                write_report(ready.store.study, spec, folder.report)
            if len(parts) > 1:
                keep_result(folder, done[place].spec.name)
            result, of = opened[place], opened[place].context
            summary = finish(result.shared, study_file, of.spec, of.folder, of.data, terminal)
            return Ended(result, summary, failed)
    raise AssertionError("a study file has one part or more")


def _measure_dense(ready: Setup, terminal: Terminal) -> None:
    """Measure the dense network for the report. Trials do not need it, so they come first."""
    context = ready.context
    dense = context.dense_figures
    if dense.accuracy is None:
        reached = dense_accuracy(
            context.dense, context.dense_hash, context.spec, context.data, context.folder, terminal
        )
        tell_dense(ready.store, context.folder, context.dense_hash, replace(dense, accuracy=reached))


_Around = tuple[Sequence[Progressed], Sequence[Progressed]]
"""The parts before the one that runs, and those after it."""


def _work_to_the_end(
    ready: Setup, workers: Workers, options: Options, terminal: Terminal, around: _Around, *, alone: bool
) -> Failed | None:
    """Call `_work`; return the error to end with, after report and results, if there is no network to export."""
    gave_up: Failed | None = None
    try:
        _work(ready, workers, options, terminal, around, alone=alone)
    except Failed as failed:
        if failed.status != ExitStatus.ALL_FAILED:
            raise
        gave_up = failed
    return failure(ready.context.spec.name, records(ready.store.study)) or gave_up


def _work(
    ready: Setup, workers: Workers, options: Options, terminal: Terminal, around: _Around, *, alone: bool
) -> None:
    """Run the trials in a pool, or a single worker in this process if it is `alone`, without a dashboard alongside."""
    spec, study = ready.context.spec, ready.store.study
    found = records(study)
    total = budget(spec)
    left = None if total is None else total - sum(r.ended for r in found)
    if left == 0:
        return
    local = workers.launcher == "local"
    if local and spec.distills:
        ready.context.teacher()  # on every core, which workers would share: while one found them, the others would wait
    gpus = torch.cuda.device_count() if local and options.device in ("auto", "cuda") else 0
    count = workers.count or default_workers(spec, left, gpus)
    most = spec.sampler.max_concurrent
    if count > most > 0 and spec.sampler.name not in ("random", "grid"):
        terminal.line(
            f"Note: sampler.max_concurrent = {most} lets {most} trials run at once, so some of the {count} "
            "workers will wait; a study with a larger max_concurrent, or 0, would use them."
        )
    launching: AbstractContextManager[Launcher]
    if not local:
        launching = on_ray(spec, options, count, workers.gpus, workers.address)
    elif count == 1 and alone:
        terminal.line(f"End: {work(ready.store, ready.context, ready.shared, options.grace_period)}.")
        return
    else:
        launching = nullcontext(LocalLauncher(spec, options, count, gpus))

    def standing() -> str:
        try:
            epochs, found = under_way(records(study), ready.context.folder)
        except (SQLAlchemyError, StorageInternalError):  # the workers wait for the database, so the table can, too
            return "The database does not answer."
        chain = [*around[0], Progressed(spec, found, epochs), *around[1]]
        return f"{headline(found)} {to_come(core_seconds_left(chain, len(ready.context.data.train)))}".rstrip()

    with launching as launcher, LiveTable(terminal, count, standing).shown() as view:
        ended = run_pool(launcher, count, view)
    terminal.line(f"End: {ended}.")

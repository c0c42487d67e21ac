"""The commands that compute: `run`, `serve`, `worker`, `base`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search.cli.options import (
    Number,
    data_root_option,
    json_option,
    machine_options,
    open_files,
    options,
    print_grade,
    runs_option,
    study_argument,
    web_options,
)
from search.options import Options, Web

if TYPE_CHECKING:
    from search.exit_status import Failed
    from search.pipeline.parts import Part
    from search.storage.folder import StudyFolder
    from search.study.spec import StudySpec
    from search.terminal.progress import Terminal
    from search.workers.pool import Launcher
    from search.workers.setup import Setup


@click.command()
@study_argument
@click.option(
    "--workers", type=click.IntRange(0, 4096), default=0, show_default="one a core, or GPU",
    help="Worker processes; torch's threads are shared out between them. 1: no other process.",
)  # fmt: skip
@click.option("--on", "where", type=click.Choice(["here", "ray"]), default="here", show_default=True)
@click.option("--address", help="With --on ray: the cluster's address (default: RAY_ADDRESS, else a Ray of its own).")
@click.option("--gpus-per-worker", type=Number(min=0), default=0.0, help="With --on ray; may be a fraction.")
@options
@json_option
def run(
    study: Path, workers: int, where: str, address: str | None, gpus_per_worker: float, options: Options, as_json: bool
) -> None:
    """Run or continue STUDY (a TOML file) until its budget is spent; then draw the report, export the best network
    and grade it on the test images.

    Workers that die are begun again, and what they were at goes on from its last epoch. On other machines join with
    `prune-search worker`, or place the workers with --on ray. Exits with 3 if all trials failed, with 4 if none keeps
    to the constraints.
    """
    if where == "here" and (address or gpus_per_worker):
        raise click.UsageError("--address and --gpus-per-worker are for --on ray")
    _run(study, Workers(workers, where, address, gpus_per_worker), options, None, as_json)


@click.command()
@study_argument
@click.option("--workers", type=click.IntRange(0, 4096), default=0, show_default="one a core, or GPU")
@web_options
@options
@json_option
def serve(study: Path, workers: int, web: Web, options: Options, as_json: bool) -> None:
    """Run STUDY and show it in the browser meanwhile, until its budget is spent or Ctrl-C.

    It is `run` and `dashboard` in one. The dashboard listens on this machine only; for others see `prune-search
    dashboard --help`.
    """
    _run(study, Workers(workers), options, web, as_json)


@dataclass(frozen=True, slots=True)
class Workers:
    """How many workers, and where."""

    count: int
    """0: one a core, or GPU."""
    where: str = "here"
    address: str | None = None
    gpus: float = 0.0


def _run(study: Path, workers: Workers, options: Options, web: Web | None, as_json: bool) -> None:
    """Run the study to its end and print what came out."""
    from search.pipeline.parts import read_parts

    parts = read_parts(study)
    if workers.where == "here" and (workers.count != 1 or web):
        from search.workers.local import begin_server

        begin_server()  # it loads torch while this process does
    from search.terminal.progress import Terminal

    with Terminal() as terminal:
        ready, result, failed = _run_parts(study, parts, workers, options, web, terminal)
    _print_result(ready, result, as_json)
    if failed:
        raise failed


def _run_parts(
    study: Path, parts: Sequence[Part], workers: Workers, options: Options, web: Web | None, terminal: Terminal
) -> tuple[Setup, dict[str, Any], Failed | None]:
    """Set up, have the trials run, deliver; with the dashboard beside if `web` says where. One part after the other.

    Returns the last part, what `finish` delivered, and what to end with if there is no network to hand over.
    """
    from search.export.export import finish
    from search.patience import waiting_for_space
    from search.pipeline.relay import note, study_of
    from search.report.page import write_report
    from search.storage.folder import StudyFolder
    from search.workers.setup import set_up

    before: tuple[StudySpec, StudyFolder] | None = None
    for number, part in enumerate(parts, 1):
        folder = StudyFolder(options.runs / part.name)
        spec = study_of(part, before, options.storage)
        if len(parts) > 1:
            left = ", ".join(later.name for later in parts[number:])
            terminal.line(f"Part {number} of {len(parts)}: {spec.name}{f'; then {left}' if left else ''}.")
        with waiting_for_space(terminal.line), ExitStack() as beside:
            ready = set_up(spec, folder, options, terminal)
            if len(parts) > 1:
                note(spec, folder)
            if web:
                from search.dashboard.server import dashboard

                address = beside.enter_context(dashboard(ready.shared, spec, folder, study, web))
                terminal.line(f"Dashboard: {address}")
            failed = _work_to_the_end(ready, workers, options, terminal, alone=web is None)
            if part is parts[-1] or failed:
                result = finish(ready.shared, study, spec, folder, ready.context.data, terminal)
            else:
                write_report(ready.store.study, spec, folder.report)
        if failed:
            break
        before = (spec, folder)
    return ready, result, failed


def _print_result(ready: Setup, result: dict[str, Any], as_json: bool) -> None:
    from search.results.records import headline, records

    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(headline(records(ready.store.study)))
        if "test" in result:
            print_grade(result["test"])
            click.echo(f"Network: {result['file']}")
        click.echo(f"Report:  {ready.context.folder.report}")


def _work_to_the_end(
    ready: Setup, workers: Workers, options: Options, terminal: Terminal, *, alone: bool
) -> Failed | None:
    """`_work`; returns what to end with, once report and results are out, if it has left no network to hand over."""
    from search.exit_status import ExitStatus, Failed
    from search.results.ending import failure
    from search.results.records import records

    gave_up: Failed | None = None
    try:
        _work(ready, workers, options, terminal, alone=alone)
    except Failed as failed:
        if failed.status != ExitStatus.ALL_FAILED:
            raise
        gave_up = failed
    return failure(ready.context.spec.name, records(ready.store.study)) or gave_up


def _work(ready: Setup, workers: Workers, options: Options, terminal: Terminal, *, alone: bool) -> None:
    """Have the trials run, by a pool; a single worker may be this process if that is `alone`, with nothing beside."""
    import torch
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    from search.results.records import headline, records
    from search.sampling.samplers import budget
    from search.workers.live import LiveTable
    from search.workers.local import LocalLauncher, default_workers
    from search.workers.pool import run_pool
    from search.workers.worker import work

    spec, study = ready.context.spec, ready.store.study
    found = records(study)
    total = budget(spec)
    left = None if total is None else total - sum(r.state not in ("running", "waiting") for r in found)
    if left == 0:
        return
    here = workers.where == "here"
    on_gpu = options.device in ("auto", "cuda") and here
    count = workers.count or default_workers(spec, left, torch.cuda.device_count() if on_gpu else 0)
    lag = spec.sampler.lag
    if count > lag > 0 and spec.sampler.name not in ("random", "grid"):
        terminal.line(
            f"Note: sampler.lag = {lag} lets {lag} trials be under way at once, so some of the {count} workers will "
            "wait; a study with a larger lag, or 0, would use them."
        )
    launching: AbstractContextManager[Launcher]
    if not here:
        from search.workers.cluster import on_ray

        launching = on_ray(spec, options, count, workers.gpus, workers.address)
    elif count == 1 and alone:
        terminal.line(f"End: {work(ready.store, ready.context, ready.shared, options.grace)}.")
        return
    else:
        launching = nullcontext(LocalLauncher(spec, options, count, torch.cuda.device_count() if on_gpu else 0))

    def standing() -> str:
        try:
            return headline(records(study))
        except (SQLAlchemyError, StorageInternalError):  # the workers wait for it, so the table can, too
            return "The database does not answer."

    with launching as launcher, LiveTable(terminal, count, standing).shown() as view:
        ended = run_pool(launcher, count, view)
    terminal.line(f"End: {ended}.")


@click.command()
@study_argument
@options
def worker(study: Path, options: Options) -> None:
    """Join STUDY as one more worker, on this machine or any that reaches its database, until its budget is spent.

    Several may be started and stopped at any time. SQLite serves the workers of one machine; for several give
    --storage a PostgreSQL database, and let them share files by --artifacts (or a common --runs folder). Exits as `run`
    does.
    """
    from search.patience import waiting_for_space
    from search.results.ending import failure
    from search.results.records import records
    from search.terminal.progress import Terminal
    from search.workers.setup import set_up
    from search.workers.worker import work

    spec, folder = open_files(study, options.runs)
    with Terminal() as terminal, waiting_for_space(terminal.line):
        ready = set_up(spec, folder, options, terminal)
        ended = work(ready.store, ready.context, ready.shared, options.grace)
    click.echo(f"End: {ended}.")
    if failed := failure(spec.name, records(ready.store.study)):
        raise failed


@click.command()
@study_argument
@data_root_option
@runs_option
@machine_options
@click.option("--out", type=click.Path(path_type=Path), help="Also write the network here.")
def base(study: Path, data_root: Path | None, runs: Path, threads: int, device: str, out: Path | None) -> None:
    """Train the dense network that STUDY asks for in [base]; `run` then finds it. Goes on if it was interrupted."""
    from pruner.exports.module import export_module
    from pruner.network.loading import load_network
    from pruner.system.machine import prepare
    from search.export.grade import grade
    from search.patience import waiting_for_space
    from search.terminal.progress import Terminal
    from search.trial.context import open_data
    from search.trial.dense import train_dense

    spec, folder = open_files(study, runs)
    chosen = prepare(threads, device)
    data = open_data(spec, data_root, chosen)
    folder.create()
    with Terminal() as terminal:
        with waiting_for_space(terminal.line):
            path = train_dense(spec, data, folder, terminal)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            export_module(load_network(path), out)
        graded = grade(path, data, spec.score, spec.data.resolution, chosen, terminal)
    print_grade(asdict(graded))
    click.echo(f"Network: {out or path}")

"""The commands `run` and `serve`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from search.cli.opening import print_grade
from search.cli.options import (
    Number,
    json_option,
    options,
    set_option,
    study_argument,
    web_options,
)
from search.options import Options, Web, Workers
from search.pipeline.relay import parts_of
from search.results.records import headline, records
from search.study.changes import Change
from search.terminal.progress import Terminal
from search.workers.local import begin_server


@click.command()
@study_argument
@click.option(
    "--workers", type=click.IntRange(0, 4096), default=0, show_default="one a core, or GPU",
    help="Worker processes, which divide the cores among them. 1: no other process.",
)  # fmt: skip
@click.option("--launcher", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option(
    "--address", help="With --launcher ray: the cluster's address (default: RAY_ADDRESS, else a new cluster)."
)
@click.option("--gpus-per-worker", type=Number(min=0), default=0.0, help="With --launcher ray; may be a fraction.")
@set_option
@options
@json_option
def run(
    study: Path,
    changes: list[Change],
    workers: int,
    launcher: str,
    address: str | None,
    gpus_per_worker: float,
    options: Options,
    as_json: bool,
) -> None:
    """Run or continue STUDY (a TOML file) until its budget is spent; then draw the report, export the best network
    and grade it on the test images.

    Workers that die are restarted, and their trials continue from the last epoch. Other machines join with
    `prune-search worker`, or --launcher ray places the workers. The command exits with 3 if all trials failed, with 4
    if none meets the constraints.
    """
    if launcher == "local" and (address or gpus_per_worker):
        raise click.UsageError("--address and --gpus-per-worker are for --launcher ray")
    _run(study, changes, Workers(workers, launcher, address, gpus_per_worker), options, None, as_json)


@click.command()
@study_argument
@click.option("--workers", type=click.IntRange(0, 4096), default=0, show_default="one a core, or GPU")
@web_options
@set_option
@options
@json_option
def serve(study: Path, changes: list[Change], workers: int, web: Web, options: Options, as_json: bool) -> None:
    """Run STUDY and show it in the browser until its budget is spent or Ctrl-C is pressed.

    The command combines `run` and `dashboard`. The dashboard listens on this machine only; for access from others see
    `prune-search dashboard --help`.
    """
    _run(study, changes, Workers(workers), options, web, as_json)


def _run(study: Path, given: list[Change], workers: Workers, options: Options, web: Web | None, as_json: bool) -> None:
    """Run the study to its end and print the results."""
    parts, changes = parts_of(study, options.runs, given)
    if workers.launcher == "local" and (workers.count != 1 or web):
        begin_server()
    from search.running import run_parts  # loads torch, while the server started above does the same

    with Terminal() as terminal:
        ended = run_parts(study, parts, changes, workers, options, web, terminal)
    if as_json:
        click.echo(json.dumps(ended.summary))
    else:
        click.echo(headline(records(ended.result.store.study)))
        if "test" in ended.summary:
            print_grade(ended.summary["test"])
            click.echo(f"Network: {ended.summary['file']}")
        click.echo(f"Report:  {ended.result.context.folder.report}")
    if ended.failed:
        raise ended.failed

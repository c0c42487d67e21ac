"""The command `worker`."""

from __future__ import annotations

from pathlib import Path

import click

from search.cli.opening import open_files
from search.cli.options import options, study_argument
from search.options import Options
from search.patience import waiting_for_space
from search.results.ending import failure
from search.results.records import records
from search.terminal.progress import Terminal
from search.workers.setup import set_up
from search.workers.worker import work


@click.command()
@study_argument
@options
def worker(study: Path, options: Options) -> None:
    """Join STUDY as one more worker, on this machine or any that reaches its database, until its budget is spent.

    Workers may be started and stopped at any time. SQLite serves the workers of one machine. For several machines,
    give --storage a PostgreSQL database, and share files with --artifacts (or a common --runs folder). The exit status
    is that of `run`.
    """
    spec, folder = open_files(study, options.runs)
    with Terminal() as terminal, waiting_for_space(terminal.line):
        ready = set_up(spec, folder, options, terminal)
        ended = work(ready.store, ready.context, ready.shared, options.grace_period)
    click.echo(f"End: {ended}.")
    if failed := failure(spec.name, records(ready.store.study)):
        raise failed

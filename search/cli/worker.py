"""The command `worker`."""

from __future__ import annotations

from pathlib import Path

import click

from search.cli.options import options, set_option, study_argument
from search.options import Options
from search.patience import waiting_for_space
from search.pipeline.relay import latest, parts_of, remember
from search.results.ending import failure
from search.results.records import records
from search.study.changes import Change
from search.terminal.progress import Terminal


@click.command()
@study_argument
@set_option
@options
def worker(study: Path, changes: list[Change], options: Options) -> None:
    """Join STUDY as one more worker, on this machine or any that reaches its database, until its budget is spent.

    Workers may be started and stopped at any time. SQLite serves the workers of one machine. For several machines,
    give --storage a PostgreSQL database, and share files with --artifacts (or a common --runs folder). The exit status
    is that of `run`.
    """
    from search.workers.setup import set_up
    from search.workers.worker import work

    parts, every = parts_of(study, options.runs, changes)
    spec, folder = latest(parts, options.runs)
    with Terminal() as terminal, waiting_for_space(terminal.line):
        ready = set_up(spec, folder, options, terminal)
        remember(options.runs, parts[-1].whole, every)
        ended = work(ready.store, ready.context, ready.shared, options.grace_period)
    click.echo(f"End: {ended}.")
    if failed := failure(spec.name, records(ready.store.study)):
        raise failed

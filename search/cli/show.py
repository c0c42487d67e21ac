"""The commands that show a study: `status`, `plot`, `dashboard`. Nothing here loads torch."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from pruner.errors import InputError
from pruner.system.files import write_out
from pruner.system.machine import cores
from search import signals
from search.cli.opening import open_files, open_shared
from search.cli.options import artifacts_option, json_option, runs_option, storage_option, study_argument, web_options
from search.dashboard.server import dashboard as shown
from search.options import Web
from search.pipeline.relay import parts_of, studies_of
from search.pipeline.remaining import Progressed, core_seconds_left, not_begun, to_come
from search.pipeline.result import result_of
from search.report.images import write_images
from search.report.page import comparison_report, write_report
from search.report.studies import studies_figure
from search.results.incumbent import Mark, score_over_time, standings
from search.results.records import Record, best, describe, headline, records, summary
from search.results.table import read_score_table, score_table, trials_table
from search.storage.studies import dense_of, load_study
from search.storage.under_way import under_way
from search.terminal.progress import Terminal


@click.command()
@study_argument
@runs_option
@storage_option
@json_option
def status(study: Path, runs: Path, storage: str | None, as_json: bool) -> None:
    """Show STUDY's progress: its trials by state, the best one, and a line for each trial. For a file with several
    parts: the progress of each, and the trials of the part that was begun last. The last line says how long the rest
    will take."""
    parts, _ = parts_of(study, runs)
    *before, (spec, folder) = begun = studies_of(parts, runs)
    opened = load_study(spec, folder, storage).study
    epochs, found = under_way(records(opened), folder)
    done = {earlier.name: records(load_study(earlier, place, storage).study) for earlier, place in before}
    later = [part for part in parts if part.name not in (*done, spec.name)]
    left = [part.name for part in later]
    dense = dense_of(opened)
    chain = [
        *(Progressed(earlier, done[earlier.name]) for earlier, _ in before),
        Progressed(spec, found, epochs),
        *map(not_begun, later),
    ]
    seconds = core_seconds_left(chain, dense.train_images) if dense and dense.train_images else None
    if as_json:
        of_parts = {"parts_done": {name: summary(earlier) for name, earlier in done.items()}, "parts_left": left}
        click.echo(
            json.dumps({
                "study": spec.name, **summary(found), **(of_parts if len(parts) > 1 else {}),
                "core_seconds_left": seconds if seconds is None else round(seconds, 1),
                "records": [asdict(r) for r in found],
            })
        )  # fmt: skip
        return
    for r in found:
        done_epochs = f"  {epochs[r.number]} of {spec.total_epochs} epochs" if r.number in epochs else ""
        click.echo(describe(r, is_best=r == best(found)) + done_epochs)
    for name, earlier in done.items():
        click.echo(f"{name}: {headline(earlier)}")
    click.echo((f"{spec.name}: " if len(parts) > 1 else "") + headline(found))
    if (result := result_of(begun)[0].name) != spec.name:
        click.echo(f"The result is the best network of {result}.")
    if left:
        click.echo(f"Not begun: {', '.join(left)}.")
    if line := to_come(seconds, f", by what trials have cost so far; this machine has {cores()} cores"):
        click.echo(line)


@click.command()
@click.argument("studies", nargs=-1, required=True, metavar="STUDY...", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The HTML file to write (default: in the study's folder).")
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    help="Also write this CSV file: the trials or, for several studies, the best score against cost.",
)
@click.option(
    "--images", type=click.Choice(["png", "svg"]), multiple=True,
    help="Also write every figure as an image, into figures/ beside the report; needs a Chrome or Chromium.",
)  # fmt: skip
@runs_option
@storage_option
def plot(
    studies: tuple[Path, ...],
    out: Path | None,
    table: Path | None,
    images: tuple[str, ...],
    runs: Path,
    storage: str | None,
) -> None:
    """Draw STUDY's report, one HTML file with all figures.

    For several studies, draw a comparison that counts the cost of all parts of each. The cost is processor time, so
    the comparison is fair even if a machine was shared. Every study is compared with the last one named. A table that
    --table wrote for several studies (FILE.csv) may stand for the studies in it.
    """
    if len(studies) == 1 and not _is_table(studies[0]):
        spec, folder = open_files(studies[0], runs)
        out = out or folder.report
        loaded = load_study(spec, folder, storage).study
        figures = write_report(loaded, spec, out)
        rows = trials_table(records(loaded))
    else:
        curves, found = _curves(studies, runs, storage)
        out = out or runs / "comparison.html"
        figures = {"studies": studies_figure(curves, found)}
        write_out(out, comparison_report(curves, figures["studies"]).encode())
        rows = score_table(curves)
        for sentence in standings(curves):
            click.echo(sentence)
    if table:
        write_out(table, rows.encode())
        click.echo(f"Table:   {table}")
    click.echo(f"Report:  {out}")
    for format in images:
        with Terminal() as terminal:
            paths = write_images(figures, out.parent / "figures", format, terminal)
        for path in paths:
            click.echo(f"Figure:  {path}")


def _curves(
    studies: Sequence[Path], runs: Path, storage: str | None
) -> tuple[dict[str, list[Mark]], dict[str, list[Record]]]:
    """Name -> best score over cost of several studies, some of them in tables; name -> trials of those that are not."""
    curves: dict[str, list[Mark]] = {}
    found: dict[str, list[Record]] = {}
    for study in studies:
        if _is_table(study):
            further = read_score_table(study)
        else:
            name, trials = _of_all_parts(study, runs, storage)
            found[name] = trials
            further = {name: score_over_time(trials)}
        for name in sorted(curves.keys() & further.keys()):
            if curves[name] != further[name]:  # as in a table older than its study
                raise InputError(f"{study}: {name} has other results than before; name one of the two")
        curves |= further
    return curves, found


def _of_all_parts(study: Path, runs: Path, storage: str | None) -> tuple[str, list[Record]]:
    """A study file's name and the trials of all its parts so far."""
    parts, _ = parts_of(study, runs)
    studies = studies_of(parts, runs)
    return parts[-1].whole, [r for place in studies for r in records(load_study(*place, storage).study)]


def _is_table(study: Path) -> bool:
    return study.suffix == ".csv"


@click.command()
@study_argument
@web_options
@runs_option
@storage_option
@artifacts_option
def dashboard(study: Path, web: Web, runs: Path, storage: str | None, artifacts: str | None) -> None:
    """Show STUDY in the browser while it runs: figures, notes, every trial's network to download. Ctrl-C ends it.

    The dashboard listens on this machine only. For access from others give --host and a password. The connection is
    not encrypted, so on a network you do not trust put it behind a proxy that encrypts, or use an SSH tunnel. Behind a
    proxy it needs a password, too, and the proxy must pass on the browser's Host (nginx: proxy_set_header Host $host;
    for an unusual port: $http_host); otherwise changes are refused as coming from another site.
    """
    spec, folder = open_files(study, runs)
    with shown(open_shared(spec, folder, storage, artifacts), spec, folder, study, web) as address:
        click.echo(f"Dashboard: {address}")
        click.echo("Ctrl-C ends it.", err=True)
        with contextlib.suppress(KeyboardInterrupt):  # the usual way to end it
            while True:
                signals.check()
                time.sleep(0.2)

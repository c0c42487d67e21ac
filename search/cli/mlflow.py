"""The command `mlflow`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from search.cli.opening import open_shared
from search.cli.options import artifacts_option, json_option, runs_option, storage_option, study_argument
from search.export.tracking import track
from search.pipeline.relay import parts_of, studies_of
from search.terminal.progress import Terminal


@click.command()
@study_argument
@click.option(
    "--tracking-uri", envvar="MLFLOW_TRACKING_URI", required=True, metavar="URI",
    help="Where MLflow keeps runs: a server's address, sqlite:///FILE ... (default: MLFLOW_TRACKING_URI).",
)  # fmt: skip
@click.option("--experiment", help="MLflow's experiment (default: the study's name).")
@runs_option
@storage_option
@artifacts_option
@json_option
def mlflow(
    study: Path, tracking_uri: str, experiment: str | None, runs: Path, storage: str | None, artifacts: str | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Log STUDY's finished trials to MLflow: a run for each, with parameters, figures, curves, card and network.

    Give it while the study runs or afterwards, as often as you like: trials that are logged already are left alone.
    For a file with several parts, every part is an experiment of its own. Needs pip install 'prune-search[mlflow]'.
    """
    parts, _ = parts_of(study, runs)
    told = {}
    with Terminal() as terminal:
        for spec, folder in studies_of(parts, runs):
            shared = open_shared(spec, folder, storage, artifacts)
            told[spec.name] = track(shared, spec, folder, tracking_uri, experiment, terminal)
    if as_json:
        click.echo(json.dumps(told))
        return
    for name, count in told.items():
        click.echo(f"{name}: {count['logged']} trials logged, {count['known']} known already")

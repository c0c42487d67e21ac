"""The command `train-dense`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from pruner.system.machine import prepare
from search.cli.opening import open_files, print_grade
from search.cli.options import data_root_option, machine_options, runs_option, study_argument
from search.options import Options
from search.patience import waiting_for_space
from search.terminal.progress import Terminal


@click.command("train-dense")
@study_argument
@data_root_option
@runs_option
@machine_options
@click.option("--out", type=click.Path(path_type=Path), help="Also write the network to this file.")
def train_dense(study: Path, data_root: Path | None, runs: Path, threads: int, device: str, out: Path | None) -> None:
    """Train the dense network that STUDY describes in [dense], for `run` to use. An interrupted training continues."""
    from pruner.exports.module import export_module
    from pruner.network.loading import load_network
    from search.export.grade import grade
    from search.trial import dense
    from search.trial.data import open_data, tell_notes

    spec, folder = open_files(study, runs)
    chosen = prepare(threads, device)
    options = Options(runs=runs, data_root=data_root, threads=threads, device=device)
    with Terminal() as terminal:
        data = open_data(spec, folder, options, chosen, terminal)
        tell_notes(data, terminal)
        folder.create()
        with waiting_for_space(terminal.line):
            path = dense.train_dense(spec, data, folder, terminal)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            export_module(load_network(path), out)
        graded = grade(
            path, data, spec.graded_by, spec.data.resolution, chosen, terminal,
            count_resolution=spec.prune.count_resolution,
        )  # fmt: skip
    print_grade(asdict(graded))
    click.echo(f"Network: {out or path}")

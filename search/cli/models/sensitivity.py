"""The command `sensitivity`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from pruner.errors import InputError, check_name
from pruner.recipe import IMPORTANCES, MASK_IMPORTANCES
from pruner.system.files import write_whole
from pruner.system.hashes import weights_hash
from pruner.system.machine import prepare
from search.cli.options import (
    Number,
    data_option,
    data_root_option,
    json_option,
    machine_options,
    resolution_option,
    runs_option,
)
from search.terminal.progress import Terminal


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--what", type=click.Choice(["weights", "channels"]), default="weights", show_default=True,
    help="Zero single weights, one layer at a time; or prune hidden channels, one stage at a time.",
)  # fmt: skip
@click.option("--importance", help="Prune by: magnitude (default), taylor; for channels l2 (default), l1, ...")
@click.option("--start", type=Number(0, 1), default=0.4, show_default=True, help="The lowest sparsity.")
@click.option("--end", type=Number(0, 1), default=0.9, show_default=True, help="The highest sparsity.")
@click.option("--step", type=Number(0.001, 1), default=0.1, show_default=True)
@click.option("--images", type=click.IntRange(min=1), default=1000, show_default=True, help="Holdout images.")
@click.option(
    "--nonzero", type=Number(0, 1, min_open=True),
    help="Also allocate this share of nonzero parameters to the layers, at the least loss that the scan predicts.",
)  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="The JSON file (default: in scans/ beside the studies).")
@runs_option
@data_option
@data_root_option
@resolution_option
@machine_options
@json_option
def sensitivity(
    model: Path,
    what: str,
    importance: str | None,
    start: float,
    end: float,
    step: float,
    images: int,
    nonzero: float | None,
    out: Path | None,
    runs: Path,
    name: str,
    data_root: Path | None,
    resolution: int,
    threads: int,
    device: str,
    as_json: bool,
) -> None:
    """Find how much of each layer of MODEL can be pruned: accuracy against sparsity, one layer at a time.

    Every point is saved; run the command again to continue, or with other sparsities to add points. The command writes
    a JSON file and, beside it, a figure in HTML.
    """
    from pruner.network.loading import load_dense
    from search.models.sensitivity import ScanSettings, curves, spread_over, table
    from search.models.sensitivity import sensitivity as find
    from search.report.page import page
    from search.report.weights import sensitivity_figure
    from search.trial.data import open_named

    if start > end:
        raise InputError(f"--start {start:g} is above --end {end:g}")
    importance = importance or ("magnitude" if what == "weights" else "l2")
    check_name("--importance", importance, MASK_IMPORTANCES if what == "weights" else IMPORTANCES)
    if what == "channels" and nonzero is not None:
        raise InputError("--nonzero: only for --what weights")
    if what == "channels" and end >= 1:
        raise InputError("--end 1: some channels must stay; give less than 1")
    chosen = prepare(threads, device)
    sparsities = [round(start + i * step, 6) for i in range(int((end - start) / step + 1e-9) + 1)]
    with Terminal() as terminal:
        data = open_named(
            name, data_root, chosen, terminal, resolution=resolution, threads=threads, parts=["train", "holdout"],
            cache=runs.absolute() / "data",
        )  # fmt: skip
        network = load_dense(model, data.classes)
        key = weights_hash(network)
        settings = ScanSettings(
            what=what, importance=importance, weights=key, data=data.key, images=min(images, len(data.holdout)),
            resolution=resolution,
        )  # fmt: skip
        stem = f"{model.stem}-{key}-{what}-{importance}-{data.key}-{images}-{resolution}"
        path = out or Path(runs, "scans", f"{stem}.json")
        found = find(network, settings, sparsities, data, path, terminal)
    if nonzero is not None:
        found["allocation"] = spread_over(network, found, nonzero)
    figure = sensitivity_figure(curves(found), found["dense"], settings.images)
    about = (
        f"One {'layer' if what == 'weights' else 'stage'} at a time, {what} of least {importance} first. The accuracy "
        f"is measured on {settings.images:,} images of {data.name}'s holdout at {resolution} px."
    )
    drawn = path.with_suffix(".html")
    write_whole(drawn, page(f"Sensitivity of {model.name}", [about], {"sensitivity": figure}).encode())
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(table(found))
    if nonzero is not None:
        click.echo("\n[space.sparsity] # for a study file")
        for layer, sparsity in found["allocation"].items():
            click.echo(f'"{layer}" = {sparsity:.3f}')
    click.echo(f"Figure: {drawn}")
    click.echo(f"Points: {path}")

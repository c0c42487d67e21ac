"""The commands that grade networks: `evaluate`, `compare`."""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from pathlib import Path

import click

from pruner.system.files import write_out
from pruner.system.machine import prepare
from search.cli.opening import print_grade
from search.cli.options import data_option, data_root_option, json_option, machine_options, resolution_option
from search.study.score import ScoreRule
from search.terminal.progress import Terminal


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@data_option
@data_root_option
@resolution_option
@machine_options
@json_option
def evaluate(
    model: Path, name: str, data_root: Path | None, resolution: int, threads: int, device: str, as_json: bool
) -> None:
    """Grade MODEL (a .pth or .safetensors file) as the course does: operations, accuracy on the test images, score.

    The file is loaded without running any code in it; anything but a MobileNetV2 is refused.
    """
    from pruner.network.loading import load_network
    from search.export.grade import grade
    from search.trial.data import open_named

    chosen = prepare(threads, device)
    load_network(model)  # report a bad file before the data set is read
    with Terminal() as terminal:
        data = open_named(name, data_root, chosen, terminal, resolution=resolution, threads=threads, parts=["test"])
        result = asdict(grade(model, data, ScoreRule(), resolution, chosen, terminal))
    if as_json:
        click.echo(json.dumps(result))
    else:
        print_grade(result)


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=click.Path(path_type=Path))
@data_option
@data_root_option
@resolution_option
@click.option("--no-grade", is_flag=True, help="Skip accuracy and score, which take longest.")
@click.option("--latency-threads", type=click.IntRange(1, 1024), default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Also draw the comparison, as this HTML file.")
@machine_options
@json_option
def compare(
    models: tuple[Path, ...],
    name: str,
    data_root: Path | None,
    resolution: int,
    no_grade: bool,
    latency_threads: int,
    out: Path | None,
    threads: int,
    device: str,
    as_json: bool,
) -> None:
    """Compare several networks: operations by stage, parameters, bytes, latency, accuracy, score.

    MODEL is a .pth, .safetensors or .onnx file, as `export` writes them. Latency is torch's or, if any MODEL is .onnx,
    onnxruntime's for all. An .onnx file has no score, and its operations are those of the network it was made from;
    they are blank if another program wrote it.

    For two networks of equal widths, such as before and after masking, --out also shows weights by layer.
    """
    from search.models.compare import comparison, table, weight_figures
    from search.models.network import open_network
    from search.report.figures import models_figure
    from search.report.page import page
    from search.trial.data import open_named

    chosen = prepare(threads, device)
    networks = [open_network(model, resolution) for model in models]  # report a bad file before the data set is read
    with Terminal() as terminal:
        data = None
        if not no_grade:
            data = open_named(name, data_root, chosen, terminal, resolution=resolution, threads=threads, parts=["test"])
        rows = comparison(
            networks, data, ScoreRule(), resolution=resolution, threads=latency_threads, device=chosen,
            progress=terminal,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps({"models": rows}))
    else:
        click.echo(table(rows))
    if out is not None:
        known = {row["file"]: row["mflops_by_stage"] for row in rows if row["mflops_by_stage"]}
        figures = {"stages": models_figure(known)} if known else {}
        loaded = [network.model for network in networks if network.model]
        if len(networks) == len(loaded) == 2 and networks[0].widths == networks[1].widths:
            figures |= weight_figures(*loaded)
        text = f"<pre>{html.escape(table(rows))}</pre>"
        write_out(out, page("Networks compared", [], figures, text).encode())
        click.echo(f"Figure: {out}", err=True)

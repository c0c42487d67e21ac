"""The commands that take networks out, grade and compare them: `export`, `submit`, `score`, `compare`."""

from __future__ import annotations

import html
import json
from dataclasses import asdict
from pathlib import Path

import click

from search.cli.options import (
    data_option,
    data_root_option,
    json_option,
    machine_options,
    open_files,
    open_shared,
    print_grade,
    resolution_option,
    result_options,
    study_argument,
    trial_option,
)
from search.options import Options

_FORMATS = ("pth", "safetensors", "onnx", "pt2", "pte")


@click.command()
@study_argument
@trial_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write into (default: export/ of the study).")
@click.option(
    "--format", "formats", type=click.Choice(_FORMATS), multiple=True,
    help="May be given more than once (default: all whose packages are installed).",
)  # fmt: skip
@click.option("--no-grade", is_flag=True, help="Do not classify the test images for the card.")
@result_options
@json_option
def export(
    study: Path,
    trial: int | None,
    out: Path | None,
    formats: tuple[str, ...],
    no_grade: bool,
    options: Options,
    as_json: bool,
) -> None:
    """Write a trial's pruned network for other programs, each file checked, and its card (JSON and Markdown).

    \b
    pth          one pickled module of stock classes, as the course wants it
    safetensors  weights without pickle, and the plan in JSON
    onnx         for onnxruntime, Netron and others (pip install 'prune-search[onnx]')
    pt2          a torch.export program
    pte          ExecuTorch, for phones and boards (pip install 'prune-search[executorch]')
    """
    from pruner.exports.formats import available
    from pruner.system.machine import prepare
    from search.export.export import deliver, find_trial, trial_files
    from search.terminal.progress import Terminal
    from search.trial.context import open_data

    spec, folder = open_files(study, options.runs)
    chosen = prepare(options.threads, options.device)
    shared = open_shared(spec, folder, options.storage, options.artifacts)
    trial_files(shared, spec, folder, find_trial(shared.store.study, spec, trial))  # told before the data set is read
    data = None if no_grade else open_data(spec, options.data_root, chosen)
    with Terminal() as terminal:
        done = deliver(
            shared, study, spec, folder, number=trial, formats=formats or available(), out=out, data=data,
            progress=terminal,
        )  # fmt: skip
    files = [{**asdict(file), "file": str(file.file)} for file in done.files]
    if as_json:
        click.echo(json.dumps({"trial": done.trial, "files": files, "card": done.card}))
        return
    for file in done.files:
        click.echo(
            f"{file.format:12} {file.file} ({file.size_bytes:,} bytes; outputs differ by {file.worst_difference:.1e})"
        )
    click.echo(f"{'card':12} {done.card_file} and {done.card_file.with_suffix('.md').name}")
    if done.card["test"]:
        print_grade(done.card["test"])


@click.command()
@study_argument
@click.option("--id", "student", required=True, help="Your student ID, which names the zip.")
@click.option(
    "--notebook", type=click.Path(path_type=Path), required=True, help="Your own .ipynb; it is packed as it is."
)
@trial_option
@click.option("--out", type=click.Path(path_type=Path), default=Path(), help="Folder for the zip (default: here).")
@result_options
@json_option
def submit(
    study: Path,
    student: str,
    notebook: Path,
    trial: int | None,
    out: Path,
    options: Options,
    as_json: bool,
) -> None:
    """Pack the hand-in zip: ID.zip with model/mobilenet.pth and ID.ipynb.

    The network in the zip goes through the grader's own steps first, in a process of its own that imports torch,
    torchvision and torch-pruning only; the zip is written only if the grader would take it.
    """
    from pruner.system.machine import prepare
    from search.export.export import find_trial, trial_files
    from search.export.submission import submit as pack
    from search.terminal.progress import Terminal
    from search.trial.context import open_data

    spec, folder = open_files(study, options.runs)
    chosen = prepare(options.threads, options.device)
    shared = open_shared(spec, folder, options.storage, options.artifacts)
    found = find_trial(shared.store.study, spec, trial)
    model = trial_files(shared, spec, folder, found).model
    root = options.data_root or (Path(spec.data.root).expanduser() if spec.data.root else None)
    data = open_data(spec, options.data_root, chosen)
    with Terminal() as terminal:
        result = pack(
            model, student, notebook, out, data, root=root, resolution=spec.data.resolution, progress=terminal
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps({"trial": found.number, **result}))
        return
    click.echo(
        f"The grader sees: a MobileNetV2, {result['mflops']:.3f} MFLOPs, {result['accuracy']:.2%} of the test images, "
        f"score {result['score']:.2f}; {result['params']:,} parameters, {result['size_bytes']:,} bytes"
    )
    click.echo(f"Hand in: {result['file']} (trial {found.number})")


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@data_option
@data_root_option
@resolution_option
@machine_options
@json_option
def score(
    model: Path, name: str, data_root: Path | None, resolution: int, threads: int, device: str, as_json: bool
) -> None:
    """Grade MODEL (a .pth or .safetensors) as the course does: operations, accuracy on the test images, score.

    The file is loaded without running any code in it; anything but a MobileNetV2 is refused.
    """
    from pruner.data.datasets import load
    from pruner.network.loading import load_network
    from pruner.system.machine import prepare
    from search.export.grade import grade
    from search.study.score import ScoreRule
    from search.terminal.progress import Terminal

    chosen = prepare(threads, device)
    load_network(model)  # a bad file is told before the data set is read
    data = load(name, data_root).to(chosen)
    with Terminal() as terminal:
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
@click.option("--no-grade", is_flag=True, help="Leave out accuracy and score, which take longest.")
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
    """Put several networks side by side: operations by stage, parameters, bytes, latency, accuracy, score.

    Of two of equal widths, as before and after masks, --out also shows weights by layer.
    """
    from pruner.data.datasets import load
    from pruner.network.loading import load_network
    from pruner.network.mobilenet import widths
    from pruner.system.files import write_out
    from pruner.system.machine import prepare
    from search.export.compare import compare as look
    from search.export.compare import table, weight_figures
    from search.report.figures import models_figure
    from search.report.page import page
    from search.study.score import ScoreRule
    from search.terminal.progress import Terminal

    chosen = prepare(threads, device)
    networks = [load_network(model) for model in models]  # a bad file is told before the data set is read
    data = None if no_grade else load(name, data_root).to(chosen)
    with Terminal() as terminal:
        rows = look(
            models, data, ScoreRule(), resolution=resolution, threads=latency_threads, device=chosen, progress=terminal
        )
    if as_json:
        click.echo(json.dumps({"models": rows}))
    else:
        click.echo(table(rows))
    if out is not None:
        figures = {"stages": models_figure({row["file"]: row["mflops_by_stage"] for row in rows})}
        if len(networks) == 2 and widths(networks[0]) == widths(networks[1]):
            figures |= weight_figures(*networks)
        text = f"<pre>{html.escape(table(rows))}</pre>"
        write_out(out, page("Networks compared", [], figures, text).encode())
        click.echo(f"Figure: {out}", err=True)

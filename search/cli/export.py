"""The commands that export a network from a study: `export`, `submit`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from pruner.exports.formats import available
from pruner.system.machine import prepare
from search.cli.opening import open_files, open_shared, print_grade
from search.cli.options import json_option, result_options, study_argument, trial_option
from search.export.export import export_trial, find_trial, trial_files
from search.export.submission import submit as pack
from search.options import Options
from search.terminal.progress import Terminal
from search.trial.data import data_root, open_data, tell_notes

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
    """Write a trial's pruned network in formats for other programs, check each file, and write its model card.

    \b
    pth          one pickled module of stock classes, as the course requires
    safetensors  weights without pickle, and the plan in JSON
    onnx         for onnxruntime, Netron and others (pip install 'prune-search[onnx]')
    pt2          a torch.export program
    pte          ExecuTorch, for phones and boards (pip install 'prune-search[executorch]')
    """
    spec, folder = open_files(study, options.runs)
    chosen = prepare(options.threads, options.device)
    shared = open_shared(spec, folder, options.storage, options.artifacts)
    trial_files(shared, spec, folder, find_trial(shared.store.study, spec, trial))  # fails before the data set is read
    with Terminal() as terminal:
        data = None if no_grade else open_data(spec, folder, options, chosen, terminal)
        if data:
            tell_notes(data, terminal)
        done = export_trial(
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
    "--notebook", type=click.Path(path_type=Path), required=True, help="Your own .ipynb; it is packed unchanged."
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

    First, the grader's own steps check the network in the zip, in a separate process that imports only torch,
    torchvision and torch-pruning. The zip is written only if the grader would accept it.
    """
    spec, folder = open_files(study, options.runs)
    chosen = prepare(options.threads, options.device)
    shared = open_shared(spec, folder, options.storage, options.artifacts)
    found = find_trial(shared.store.study, spec, trial)
    model = trial_files(shared, spec, folder, found).model
    with Terminal() as terminal:
        data = open_data(spec, folder, options, chosen, terminal)
        result = pack(
            model, student, notebook, out, data, root=data_root(spec, options), resolution=spec.data.resolution,
            progress=terminal,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps({"trial": found.number, **result}))
        return
    click.echo(
        f"The grader sees: a MobileNetV2, {result['mflops']:.3f} MFLOPs, {result['accuracy']:.2%} of the test images, "
        f"score {result['score']:.2f}; {result['params']:,} parameters, {result['size_bytes']:,} bytes"
    )
    click.echo(f"Hand in: {result['file']} (trial {found.number})")

"""The commands that export a network from a study: `export`, `submit`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pruner.errors import InputError
from pruner.system.machine import prepare
from search.cli.opening import open_result, open_shared, print_grade
from search.cli.options import json_option, result_options, study_argument, trial_option
from search.options import Options
from search.terminal.progress import Terminal

_FORMATS = ("pth", "safetensors", "onnx", "onnx-int8", "pt2", "pte")


@click.command()
@study_argument
@trial_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write into (default: export/ of the study).")
@click.option(
    "--format", "formats", type=click.Choice(_FORMATS), multiple=True,
    help="May be given more than once (default: all whose packages are installed, without onnx-int8).",
)  # fmt: skip
@click.option(
    "--keep-float", metavar="LAYER[,LAYER...]",
    help="What onnx-int8 leaves in float: layers (features.5.conv.1.0), blocks (features.5), stages (stage3, head).",
)  # fmt: skip
@click.option("--no-grade", is_flag=True, help="Do not classify the test images for the card.")
@result_options
@json_option
def export(
    study: Path,
    trial: int | None,
    out: Path | None,
    formats: tuple[str, ...],
    keep_float: str | None,
    no_grade: bool,
    options: Options,
    as_json: bool,
) -> None:
    """Write a trial's pruned network in formats for other programs, check each file, and write its model card.

    \b
    pth          one pickled module of stock classes, as the course requires
    safetensors  weights without pickle, and the plan in JSON
    onnx         for onnxruntime, Netron and others (pip install 'prune-search[onnx]')
    onnx-int8    ONNX with 8-bit weights and activations, calibrated on 256 training images
    pt2          a torch.export program
    pte          ExecuTorch, for phones and boards (pip install 'prune-search[executorch]')

    int8 changes the network: the card has its accuracy on the holdout and the test images, bytes and latency beside
    the float network's. If it loses more than a point on the holdout, a line names the block that loses most.
    """
    from pruner.exports.formats import INT8, available
    from pruner.exports.int8 import find_layers
    from search.export.export import export_trial, find_trial, trial_files
    from search.trial.data import open_data, tell_notes

    if keep_float is not None and INT8 not in formats:
        raise InputError("--keep-float: only for --format onnx-int8")
    kept = tuple(name.strip() for name in keep_float.split(",")) if keep_float else ()
    find_layers(kept)
    spec, folder = open_result(study, options.runs)
    chosen = prepare(options.threads, options.device)
    shared = open_shared(spec, folder, options.storage, options.artifacts)
    trial_files(shared, spec, folder, find_trial(shared.store.study, spec, trial))  # fails before the data set is read
    with Terminal() as terminal:
        needed = not no_grade or INT8 in formats
        data = open_data(spec, folder, options, chosen, terminal) if needed else None
        if data:
            tell_notes(data, terminal)
        done = export_trial(
            shared, study, spec, folder, number=trial, formats=formats or available(), out=out, keep_float=kept,
            data=data, to_grade=not no_grade, progress=terminal,
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
    if INT8 in formats:
        _print_int8(done.card["int8"])


def _print_int8(int8: dict[str, Any]) -> None:
    """Print an int8 network beside the float one in one line, with a second line if it loses much."""
    from search.export.int8 import warning

    test = "" if int8["test"] is None else f", {int8['test']:.2%} of the test images (float: {int8['float_test']:.2%})"
    click.echo(
        f"int8: {int8['holdout']:.2%} of the holdout right (float: {int8['float_holdout']:.2%}){test}; "
        f"{int8['size_bytes']:,} bytes (float ONNX: {int8['float_bytes']:,}); {int8['latency']['median_ms']:.2f} ms by "
        f"onnxruntime (float: {int8['float_latency']['median_ms']:.2f})"
    )
    if line := warning(int8):
        click.echo(line)


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
    from search.export.export import find_trial, trial_files
    from search.export.submission import submit as pack
    from search.trial.data import data_root, open_data

    spec, folder = open_result(study, options.runs)
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

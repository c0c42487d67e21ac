"""The command `predict`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from pruner.data.known import SMALL
from pruner.network.count import GRADER_RESOLUTION
from pruner.system.machine import prepare
from search.cli.options import json_option
from search.terminal.progress import Terminal


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path(path_type=Path))
@click.option(
    "--classes", metavar="FILE|NAME,NAME...",
    help="The classes' names in the order of the network's outputs: a file with one a line, or with commas between "
    "them (default: those on the card that export wrote beside MODEL, else class 0, class 1 ...).",
)  # fmt: skip
@click.option(
    "--data",
    type=click.Choice([name for name, known in SMALL.items() if known.class_names]),
    help="Take the names of this data set's classes.",
)
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="How many classes are shown.")
@click.option(
    "--resolution", type=click.IntRange(8, 2048), help="Pixels a side (default: what the card says, else 224)."
)
@json_option
def predict(
    model: Path,
    images: tuple[Path, ...],
    classes: str | None,
    data: str | None,
    top: int,
    resolution: int | None,
    as_json: bool,
) -> None:
    """Classify image files: for each IMAGE the most probable classes.

    MODEL is a .pth, .safetensors or .onnx file, in float or int8. Images may be of any size and mode. They are turned
    as their EXIF data says, transparency becomes white, the short side is resized to the resolution and the middle is
    kept. If any file is not an image, nothing is classified.

    \b
    prune-search predict mobilenet-8.pth cat.jpg dog.png --data cifar10
    prune-search predict mobilenet-8-int8.onnx photos/*.jpg --classes names.txt --json
    """
    from search.models.network import open_network
    from search.models.predict import card_resolution, class_names, text
    from search.models.predict import predict as classified

    prepare(0, "cpu")
    resolution = resolution or card_resolution(model) or GRADER_RESOLUTION
    network = open_network(model, resolution)
    names = class_names(model, network.classes, classes, data)
    with Terminal() as terminal:
        found = classified(network, images, names, resolution=resolution, top=top, progress=terminal)
    if as_json:
        about = {"model": str(model), "resolution": resolution, "predictions": [asdict(one) for one in found]}
        click.echo(json.dumps(about))
    else:
        click.echo(text(found))

"""The command `init`."""

from __future__ import annotations

from pathlib import Path

import click

from pruner.data.known import SMALL
from pruner.errors import InputError
from search.cli.options import DataSet, Number, dense_option, resolution_option
from search.study.template import Wishes, study_text

_SHARE = Number(min=0, max=1, min_open=True)
_MORE = Number(min=0, min_open=True)


@click.command()
@click.option(
    "--data",
    required=True,
    type=DataSet(),
    help="A folder of images (DIR/train/CLASS/* or DIR/CLASS/*), or cifar10, digits.",
)
@dense_option
@resolution_option
@click.option("--max-mflops", type=_MORE, help="Millions of operations that the network may have.")
@click.option("--max-mflops-ratio", type=_SHARE, help="The same as a share of the dense network's, such as 0.25.")
@click.option("--max-latency-ms", type=_MORE, help="Milliseconds for one image on one core of this machine.")
@click.option("--max-size-mb", type=_MORE, help="Millions of bytes of its parameters at 32 bits.")
@click.option("--max-accuracy-drop", type=_SHARE, help="Accuracy that it may lose on the holdout; 0.01 is one point.")
def init(data: str, dense: Path | None, resolution: int, **limits: float | None) -> None:
    """Write a study file for your own images, network and goal to standard output, with comments to change it by.

    \b
    prune-search init --data photos --dense mobilenetv2.pth --max-mflops 80 > mine.toml
    prune-search run mine.toml

    A dense network for other classes, or torchvision's ImageNet weights where none is given, gets a new classifier and
    is fine-tuned first. With limits on operations alone, candidates of just that size are evaluated untrained and the
    best of them trained; with any other, the trials are trained networks of many sizes. Without a limit, the whole
    trade-off between size and accuracy is searched.
    """
    from pruner.data.listing import list_images
    from pruner.network.count import count_of
    from pruner.network.loading import load_network
    from pruner.network.mobilenet import classes, fresh, widths

    folder = data not in SMALL
    section = {"name": "folder", "root": str(Path(data).absolute())} if folder else {"name": data}
    count = len(list_images(Path(data)).class_names) if folder else SMALL[data].classes
    model = fresh(count, 0) if dense is None else load_network(dense)
    mflops, _ = count_of(widths(model), classes(model), resolution)
    wishes = Wishes(
        data=section, resolution=resolution, dense=str(dense.absolute()) if dense else None,
        trained=dense is not None and classes(model) == count, **limits,
    )  # fmt: skip
    if wishes.max_mflops is not None and wishes.max_mflops >= mflops:
        raise InputError(f"--max-mflops {wishes.max_mflops:g}: the dense network has {mflops:.1f} at {resolution} px")
    click.echo(study_text(wishes, mflops), nl=False)

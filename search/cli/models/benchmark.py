"""The command `benchmark`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pruner.system.machine import cores, prepare, processor
from search.cli.options import json_option, resolution_option
from search.terminal.progress import Terminal

if TYPE_CHECKING:
    from pruner.measurement.latency import Backend


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", type=click.Path(path_type=Path))
@click.option(
    "--backend", "backends", type=click.Choice(["torch", "onnxruntime"]), multiple=True,
    help="May be given more than once (default: both, if onnxruntime is installed).",
)  # fmt: skip
@click.option(
    "--threads", "counts", type=click.IntRange(1, 1024), multiple=True,
    help="Threads of each run; may be given more than once (default: 1, and as many as there are cores).",
)  # fmt: skip
@click.option(
    "--batch-size", type=click.IntRange(1, 4096), default=32, show_default=True, help="Images a batch, for images/s."
)
@click.option(
    "--runs", type=click.IntRange(3, 100_000), default=30, show_default=True,
    help="Single images timed of each network; batches: a fifth as many, at least 5.",
)  # fmt: skip
@resolution_option
@json_option
def benchmark(
    models: tuple[Path, ...],
    backends: tuple[Backend, ...],
    counts: tuple[int, ...],
    batch_size: int,
    runs: int,
    resolution: int,
    as_json: bool,
) -> None:
    """Time networks on this machine's CPU: latency of one image, and images a second in batches.

    MODEL is a .pth, .safetensors or .onnx file; onnxruntime runs all of them, torch the first two. The networks take
    turns, a run of each, so that whatever else the machine does disturbs all alike: compare the rows of one table, not
    of two. Nine of ten runs took no longer than p90.

    \b
    prune-search benchmark dense.pth pruned.pth pruned-int8.onnx
    prune-search benchmark pruned.onnx --threads 1 --threads 4 --runs 200
    """
    from search.models.benchmark import benchmark as measured
    from search.models.benchmark import open_candidates, table

    prepare(1, "cpu")
    threads = list(dict.fromkeys(counts or (1, cores())))
    with Terminal() as terminal:
        candidates = open_candidates(models, tuple(dict.fromkeys(backends)), resolution, terminal)
        speeds = measured(
            candidates, threads=threads, resolution=resolution, batch_size=batch_size, runs=runs, progress=terminal
        )
    if as_json:
        machine = {"processor": processor(), "cores": cores()}
        click.echo(json.dumps({"machine": machine, "models": [asdict(speed) for speed in speeds]}))
        return
    click.echo(table(speeds))
    click.echo(f"Images of {resolution} px, batches of {batch_size}; {processor()}, {cores()} cores")

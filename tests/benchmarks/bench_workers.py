"""One worker with all threads against one worker a core with a thread each: which gets through more?

    python tests/benchmarks/bench_workers.py [--seconds 30] [--data-root DIR]

Trains the same pruned network (half of the hidden channels) in one process, then in one a core at once, in turns, and
prints images a second of both and their ratio; with `--trials N` also whole trials an hour on digits, by
`prune-search run --workers`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

from pruner.system.machine import cores

STUDY = """
trials = {trials}
epoch_eval_images = 0
[data]
name = "digits"
resolution = 32
[dense]
init = "random"
optimizer = "adamw"
epochs = 1
[space]
importance = "l2"
learning_rate = {{ low = 0.001, high = 0.006, log = true }}
[space.pruning_ratio]
stage3 = {{ low = 0.2, high = 0.8 }}
stage5 = {{ low = 0.2, high = 0.8 }}
stage7 = {{ low = 0.2, high = 0.8 }}
[train]
optimizer = "adamw"
epochs = 2
batch_size = 32
"""


def train(
    case: tuple[str, int, int], root: Path | None, threads: int, start: float, end: float, out: Connection
) -> None:
    """Train from `start` to `end` (seconds since the epoch) and send images a second."""
    from pruner.channels import importance
    from pruner.channels import plan as channels
    from pruner.data.loading import load
    from pruner.network import mobilenet
    from pruner.network.structure import STAGES
    from pruner.recipe import Prune
    from pruner.system import machine
    from pruner.train import Training
    from pruner.training.fine_tune import fine_tune

    machine.prepare(threads, "cpu")
    name, resolution, batch = case
    images = load(name, root)
    dense = mobilenet.fresh(10, 0).eval()
    prune = Prune(pruning_ratio=dict.fromkeys(STAGES, 0.5))
    model = channels.apply_plan(dense, channels.make_plan(dense, prune, importance.score_channels(dense, "l2")))
    training = Training(epochs=10**6, batch_size=batch, resolution=resolution, images_per_epoch=2 * batch)
    done, began = 0, 0.0
    for epoch in fine_tune(model, images.train, training, mirrors=images.mirrors):
        now = time.time()
        if now < start:
            continue  # warming up, until all are there
        if not began:
            began = now
            continue
        done += epoch.images
        if now > end:
            out.send(done / (now - began))
            return


def rate(case: tuple[str, int, int], root: Path | None, workers: int, threads: int, seconds: float) -> float:
    """Images a second of so many processes together."""
    start = time.time() + 15
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(workers)]
    running = [
        context.Process(target=train, args=(case, root, threads, start, start + seconds, theirs)) for _, theirs in pipes
    ]
    for process in running:
        process.start()
    total = sum(ours.recv() for ours, _ in pipes)
    for process in running:
        process.join()
    return total


def trials_an_hour(workers: int, trials: int) -> float:
    """Of a whole study on digits, less what it takes to run it again when nothing is left to do."""
    with tempfile.TemporaryDirectory() as place:
        study = Path(place) / "bench.toml"
        program = [sys.executable, "-c", "from search.cli.main import main; main()"]
        arguments = [*program, "run", str(study), "--runs", place, "--workers", str(workers)]
        spent = []
        for count in (workers, workers + trials):
            study.write_text(STUDY.format(trials=count))
            began = time.perf_counter()
            subprocess.run(arguments, check=True, capture_output=True)
            spent.append(time.perf_counter() - began)
        began = time.perf_counter()
        subprocess.run(arguments, check=True, capture_output=True)
        idle = time.perf_counter() - began
    return 3600 * trials / (spent[1] - idle)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("CIFAR10_ROOT"))
    options = parser.parse_args()
    many = cores()
    cases = [("digits", 32, 32)]
    if options.data_root:
        cases += [("cifar10", 96, 64), ("cifar10", 224, 16)]
    print(f"{'':>20}{'1 x ' + str(many):>10}{str(many) + ' x 1':>10}{'ratio':>8}")
    for case in cases:
        root = Path(options.data_root) if options.data_root else None
        rounds = [
            (rate(case, root, 1, many, options.seconds), rate(case, root, many, 1, options.seconds))
            for _ in range(options.rounds)
        ]
        one, several = (statistics.median(values) for values in zip(*rounds, strict=True))
        ratio = statistics.median(b / a for a, b in rounds)
        print(f"{case[0]:>9} at {case[1]:3} px {one:10.1f}{several:10.1f}{ratio:8.2f}  images/s", flush=True)
    if options.trials:
        one, several = trials_an_hour(1, options.trials), trials_an_hour(many, options.trials)
        print(f"{'digits, whole trials':>20}{one:10.0f}{several:10.0f}{several / one:8.2f}  trials/h")


if __name__ == "__main__":
    main()

"""How close an epoch of fine-tuning comes to the same model stepping on one synthetic batch already in memory.

    python tests/benchmarks/bench_epoch.py [--resolutions 96 224] [--steps 12] [--rounds 5]

Prints, for each resolution, images a second of both and their ratio; the two take turns within one run, and the
ratio is the median over the rounds. The network is a MobileNetV2 with 70 % of its hidden channels cut. `--malloc`
also shows what keeping freed memory (pruner.machine) is worth: it runs itself once without.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import torch

from pruner import machine
from pruner.channels import apply_plan, make_plan
from pruner.data import Split, train_batches
from pruner.fine_tune import Step, fine_tune
from pruner.importance import score_channels
from pruner.mobilenet import fresh
from pruner.recipe import STAGES, Prune, Tune


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[96, 224])
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--malloc", action="store_true")
    options = parser.parse_args()
    if options.malloc:
        command = [argument for argument in sys.argv if argument != "--malloc"]
        print("with glibc's defaults:", flush=True)
        subprocess.run([sys.executable, *command], env={**os.environ, "BENCH_KEEP_DEFAULT": "1"}, check=True)
        print("with freed memory kept:")
    if os.environ.get("BENCH_KEEP_DEFAULT"):
        torch.set_num_threads(machine.cores())
    else:
        machine.prepare()
    dense = fresh(10, 0)
    plan = make_plan(dense, Prune(cut=dict.fromkeys(STAGES, 0.7)), score_channels(dense, "l2"))
    print(f"{plan.mflops:.1f} MFLOPs, batch {options.batch}, {options.steps} steps x {options.rounds} rounds, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}")  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    count = options.steps * options.batch
    split = Split(
        torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator),
        torch.randint(0, 10, (count,), generator=generator),
    )
    for resolution in options.resolutions:
        tune = Tune(epochs=options.rounds + 1, batch=options.batch, resolution=resolution)
        bound = _synthetic(apply_plan(dense, plan), split, tune)
        pairs = [
            (epoch.images / epoch.seconds, next(bound))
            for epoch in fine_tune(apply_plan(dense, plan), split, tune, mirrors=True)
        ][1:]  # the first round warms up
        ratio = statistics.median(ours / theirs for ours, theirs in pairs)
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"{resolution:4} px: {ours:6.1f} images/s, synthetic {theirs:6.1f} images/s, ratio {ratio:.3f}", flush=True
        )


def _synthetic(model: torch.nn.Module, split: Split, tune: Tune) -> Iterator[float]:
    """Images a second of as many steps as an epoch has, on one batch that lies ready in memory, again and again."""
    device = split.images.device
    model.to(device, memory_format=torch.channels_last).train()
    images, labels = next(
        iter(train_batches(split, batch=tune.batch, resolution=tune.resolution, seed=0, epoch=0, flip=True, shift=2))
    )
    step = Step(model, tune, device)
    while True:
        began = time.perf_counter()
        for _ in range(len(split) // tune.batch):
            step(images, labels, 1e-3)
        yield len(split) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()

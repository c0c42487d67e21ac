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
        tune = Tune(epochs=1, batch=options.batch, resolution=resolution)
        rounds = [
            (_epoch(apply_plan(dense, plan), split, tune), _synthetic(apply_plan(dense, plan), split, tune))
            for _ in range(options.rounds)
        ]
        ratio = statistics.median(ours / bound for ours, bound in rounds)
        ours, bound = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"{resolution:4} px: {ours:6.1f} images/s, synthetic {bound:6.1f} images/s, ratio {ratio:.3f}", flush=True
        )


def _epoch(model: torch.nn.Module, split: Split, tune: Tune) -> float:
    """Images a second of one epoch as a trial trains it."""
    began = time.perf_counter()
    (epoch,) = fine_tune(model, split, tune, mirrors=True)
    return epoch.images / (time.perf_counter() - began)


def _synthetic(model: torch.nn.Module, split: Split, tune: Tune) -> float:
    """Images a second of as many steps on one batch that lies ready in memory."""
    device = split.images.device
    model.to(device, memory_format=torch.channels_last).train()
    images, labels = next(
        iter(train_batches(split, batch=tune.batch, resolution=tune.resolution, seed=0, epoch=0, flip=True, shift=2))
    )
    step = Step(model, tune, device)
    began = time.perf_counter()
    for _ in range(len(split) // tune.batch):
        step(images, labels, 1e-3)
    return len(split) / (time.perf_counter() - began)


if __name__ == "__main__":
    main()

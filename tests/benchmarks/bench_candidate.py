"""How long a candidate takes, from error curves to a reconstructed network that has been evaluated.

    python tests/benchmarks/bench_candidate.py MODEL.pth [--mflops 45 30 15] [--images 640] [--seen 1000] [--threads N]

Prints seconds of what a study does once (curves; targets) and of what a candidate takes (plan, pruning and
reconstruction; classifying `--seen` holdout images), and the ratio of these to one classification of
the same calibration images by MODEL; and the most memory that the process has held.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from pruner.channels.importance import score_channels
from pruner.channels.plan import apply_plan, make_plan
from pruner.channels.reconstruct import reconstruct, record_targets
from pruner.data.loading import load
from pruner.measurement.measure import accuracy, evaluate
from pruner.network.loading import load_dense
from pruner.recipe import Prune
from pruner.system import machine
from pruner.system.cores import core_count

T = TypeVar("T")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--mflops", type=float, nargs="+", default=[45, 30, 15])
    parser.add_argument("--images", type=int, default=640, help="training images for reconstruction")
    parser.add_argument("--seen", type=int, default=1000, help="holdout images to classify")
    parser.add_argument("--threads", type=int, default=machine.cores())
    parser.add_argument("--data-root", type=Path, default=os.environ.get("CIFAR10_ROOT"))
    options = parser.parse_args()
    machine.prepare(options.threads)
    data = load("cifar10", options.data_root and Path(options.data_root))
    dense = load_dense(options.model, data.classes)
    calibration, held = data.train.drawn(options.images, 0), data.holdout.first(options.seen)
    print(f"{options.images} images for reconstruction, {core_count()} cores, torch {torch.__version__}")
    curves, seconds = timed(lambda: score_channels(dense, "obs", calibration, resolution=224))
    print(f"once: curves {seconds:.1f} s, ", end="")
    targets, seconds = timed(lambda: record_targets(dense, calibration))
    print(f"recording targets {seconds:.1f} s", flush=True)
    _, classifying = timed(lambda: evaluate(dense, calibration, resolution=224))
    for mflops in options.mflops:
        prune = Prune(importance="obs", target_mflops=mflops, allocation="lagrangian", reconstruct=True)
        plan, planning = timed(lambda prune=prune: make_plan(dense, prune, curves, curves))
        cut, cutting = timed(lambda plan=plan: apply_plan(dense, plan).eval())
        _, repairing = timed(lambda cut=cut, plan=plan: reconstruct(cut, targets, plan, calibration))
        right, seeing = timed(lambda cut=cut: evaluate(cut, held, resolution=224))
        total = planning + cutting + repairing
        print(f"{plan.mflops:5.1f} MFLOPs: plan {planning:.2f}, pruning {cutting:.2f}, reconstruction {repairing:.2f}, "
              f"together {total:.2f} s ({total / classifying:.2f} times a classification of these images by the dense "
              f"network); {options.seen} images classified in {seeing:.2f} s, {accuracy(right):.1%} right; at most "
              f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB of memory so far",
              flush=True)  # fmt: skip


def timed(work: Callable[[], T]) -> tuple[T, float]:
    """(what it gives, seconds)."""
    began = time.perf_counter()
    return work(), time.perf_counter() - began


if __name__ == "__main__":
    main()

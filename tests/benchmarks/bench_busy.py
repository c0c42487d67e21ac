"""Training and evaluation alone and beside two busy processes: a part of the batch on each core, or torch's threads.

    python tests/benchmarks/bench_busy.py [--mflops 15] [--resolution 224] [--steps 6] [--rounds 3]

Torch's threads share every operation and wait for each other at its end; parts of a batch do not. Prints images a
second of both ways, alone and beside two busy single-threaded loops, and what share of its speed alone each keeps. All
take turns within one run; figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.channels.importance import score_channels
from pruner.channels.plan import apply_plan, make_plan
from pruner.data.batches import normalized, prepared, resized_as_pil, train_batches
from pruner.data.datasets import Split
from pruner.measurement.measure import evaluate
from pruner.network.mobilenet import fresh
from pruner.recipe import Prune
from pruner.system import machine
from pruner.system.cores import use_cores
from pruner.train import Training
from pruner.training.step import Step, make_optimizer

BATCH = 64


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mflops", type=float, default=15.0)
    parser.add_argument("--resolution", type=int, default=224)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    machine.prepare()
    cores = machine.cores()
    dense = fresh(10, 0)
    plan = make_plan(dense, Prune(target_mflops=options.mflops, allocation="uniform"), score_channels(dense, "l2"))
    count = options.steps * BATCH
    generator = torch.Generator().manual_seed(0)
    split = Split(
        torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator),
        torch.randint(0, 10, (count,), generator=generator),
    )
    print(f"{machine.processor()}, {cores} cores, torch {torch.__version__}; {plan.mflops:.1f} MFLOPs at "
          f"{options.resolution} px, batch {BATCH}, {options.steps} steps x {options.rounds} rounds")  # fmt: skip

    def network() -> MobileNetV2:
        return apply_plan(dense, plan)

    ways: dict[str, Callable[[], None]] = {
        "training, ours": _ours(network(), split, options.resolution),
        "training, torch's threads": _torchs(network(), split, options.resolution),
        "evaluation, ours": lambda: _evaluate(network(), split, options.resolution),
        "evaluation, torch's threads": lambda: _evaluate_torch(network(), split, options.resolution),
    }

    def speed(way: str) -> float:
        own = way.endswith("ours")
        use_cores(cores)
        if not own:
            torch.set_num_threads(cores)
        began = time.perf_counter()
        ways[way]()
        return count / (time.perf_counter() - began)

    for way in ways:
        speed(way)  # warms up
    alone: dict[str, list[float]] = {way: [] for way in ways}
    busy: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds):
        for way in ways:
            alone[way].append(speed(way))
        with _busy(2):
            for way in ways:
                busy[way].append(speed(way))
    for way in ways:
        first, second = statistics.median(alone[way]), statistics.median(busy[way])
        print(f"{way:28} alone {first:7.1f} images/s, beside two busy loops {second:7.1f} ({second / first:.0%})")


def _ours(model: MobileNetV2, split: Split, resolution: int) -> Callable[[], None]:
    training = Training(batch_size=BATCH, resolution=resolution)
    step = Step(model, training, torch.device("cpu"))
    step.begin(training)

    def run() -> None:
        for number, batch in enumerate(
            train_batches(split, batch_size=BATCH, seed=0, epoch=0, flip=True, random_shift=2)
        ):
            step(batch, None, 1e-3, number, len(split) // BATCH)

    return run


def _torchs(model: MobileNetV2, split: Split, resolution: int) -> Callable[[], None]:
    model.train().to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, Training())

    def run() -> None:
        for batch in train_batches(split, batch_size=BATCH, seed=0, epoch=0, flip=True, random_shift=2):
            optimizer.zero_grad(set_to_none=True)
            F.cross_entropy(model(prepared(batch.images, resolution)), batch.labels).backward()
            optimizer.step()

    return run


def _evaluate(model: MobileNetV2, split: Split, resolution: int) -> None:
    evaluate(model, split, resolution=resolution)


@torch.inference_mode()
def _evaluate_torch(model: MobileNetV2, split: Split, resolution: int) -> None:
    model.eval().to(memory_format=torch.channels_last)
    for images in split.images.split(32):
        model(normalized(resized_as_pil(images, resolution))).argmax(1)


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """So many processes that compute without end, each in one thread."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


if __name__ == "__main__":
    main()

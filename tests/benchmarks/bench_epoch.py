"""How fast an epoch of fine-tuning is, against two ways to train the same network with the same images.

    python tests/benchmarks/bench_epoch.py [--mflops 15 26 45 --round-to 8] [--resolutions 224]
        [--data-parallel 16 32 64] [--memory-formats channels_first] [--precisions bfloat16] [--frozen 0 1]

- synthetic: the same steps on one batch that lies ready in memory, the most that the machine can do;
- lab: the course notebook's loop, a DataLoader over PIL images that are resized to the resolution, eager, channels
  first, with torch's own threads.

Prints images a second of each and the ratios to ours; the three take turns within one run, and a ratio is the median
over the rounds. All combinations of the settings are measured, so the fastest on this machine can be read off. The
network is a MobileNetV2 with 70 % of its hidden channels pruned, or `--mflops` by uniform ratios. `--malloc` also shows
what keeping freed memory (pruner.system.machine) is worth: it runs itself once without.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from pruner.channels.importance import score_channels
from pruner.channels.plan import ChannelPlan, apply_plan, make_plan
from pruner.data.batches import MEAN, STD, train_batches
from pruner.data.datasets import Split
from pruner.network.mobilenet import fresh
from pruner.network.structure import STAGES
from pruner.recipe import Prune
from pruner.system import machine
from pruner.system.cores import use_cores
from pruner.train import Training
from pruner.training.fine_tune import fine_tune
from pruner.training.step import Step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--resolutions", type=int, nargs="+", default=[96, 224])
    parser.add_argument("--data-parallel", type=int, nargs="+", default=[32])
    parser.add_argument("--memory-formats", nargs="+", default=["channels_last"])
    parser.add_argument("--precisions", nargs="+", default=["auto"])
    parser.add_argument("--frozen", type=int, nargs="+", default=[0], help="1: BatchNorm's statistics are frozen")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--mflops", type=float, nargs="+", default=[0.0])
    parser.add_argument("--round-to", type=int, default=1)
    parser.add_argument("--malloc", action="store_true")
    options = parser.parse_args()
    if options.malloc:
        command = [argument for argument in sys.argv if argument != "--malloc"]
        print("with glibc's defaults:", flush=True)
        subprocess.run([sys.executable, *command], env={**os.environ, "BENCH_KEEP_DEFAULT": "1"}, check=True)
        print("with freed memory kept:")
    if os.environ.get("BENCH_KEEP_DEFAULT"):
        use_cores(machine.cores())
    else:
        machine.prepare()
    print(f"{machine.processor()}, {machine.cores()} cores, torch {torch.__version__}; batch {options.batch}, "
          f"{options.steps} steps x {options.rounds} rounds")  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    count = options.steps * options.batch
    split = Split(
        torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator),
        torch.randint(0, 10, (count,), generator=generator),
    )
    for mflops, resolution in itertools.product(options.mflops, options.resolutions):
        plan = _plan(mflops, options.round_to)
        for size, layout, precision, frozen in itertools.product(
            options.data_parallel, options.memory_formats, options.precisions, options.frozen
        ):
            training = Training(
                epochs=options.rounds + 1, batch_size=options.batch, resolution=resolution, data_parallel=size,
                memory_format=layout, precision=precision, frozen_statistics=bool(frozen), learning_rate=1e-4,
            )  # fmt: skip
            how = f"parts of {size}, {layout}, {precision}{', frozen' if frozen else ''}"
            print(f"{plan.mflops:5.1f} MFLOPs, {resolution} px, {how}: ", end="")
            _compare(plan, split, training)


def _plan(mflops: float, round_to: int) -> ChannelPlan:
    dense = fresh(10, 0)
    if mflops:
        prune = Prune(target_mflops=mflops, allocation="uniform", round_to=round_to)
    else:
        prune = Prune(pruning_ratio=dict.fromkeys(STAGES, 0.7), round_to=round_to)
    return make_plan(dense, prune, score_channels(dense, "l2"))


def _compare(plan: ChannelPlan, split: Split, training: Training) -> None:
    dense = fresh(10, 0)
    others = {
        "synthetic": _synthetic(apply_plan(dense, plan), split, training),
        "lab": _lab(apply_plan(dense, plan), split, training),
    }
    epochs = fine_tune(apply_plan(dense, plan), split, training, mirrors=True, resolution=training.resolution)
    next(epochs)  # the first round warms up
    for other in others.values():
        next(other)
    rounds = [(epoch.images / epoch.seconds, *map(next, others.values())) for epoch in epochs]
    ours = statistics.median(row[0] for row in rounds)
    said = [f"{ours:6.1f} images/s"]
    for place, name in enumerate(others, start=1):
        theirs = statistics.median(row[place] for row in rounds)
        ratio = statistics.median(row[0] / row[place] for row in rounds)
        said.append(f"{name} {theirs:6.1f}, ratio {ratio:.3f}")
    print("; ".join(said), flush=True)


def _synthetic(model: torch.nn.Module, split: Split, training: Training) -> Iterator[float]:
    """Images a second of as many steps as an epoch has, on one batch that lies ready in memory, again and again."""
    device = split.images.device
    model.to(device).train()
    batch = next(train_batches(split, batch_size=training.batch_size, seed=0, epoch=0, flip=True, random_shift=2))
    step = Step(model, training, device)
    step.begin(training)
    count = len(split) // training.batch_size
    while True:
        began = time.perf_counter()
        for number in range(count):
            step(batch, None, 1e-4, number, count)
        yield count * training.batch_size / (time.perf_counter() - began)


class _Pictures(Dataset[tuple[torch.Tensor, int]]):
    """The images as the notebook has them: PIL images that are resized, and normalized one by one."""

    def __init__(self, split: Split, resolution: int) -> None:
        self._pictures = [to_pil_image(image) for image in split.images]
        self._labels = split.labels.tolist()
        self._transform = transforms.Compose(
            [
                transforms.Resize((resolution, resolution)),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
        return self._transform(self._pictures[place]), self._labels[place]


def _lab(model: torch.nn.Module, split: Split, training: Training) -> Iterator[float]:
    """Images a second of the notebook's loop."""
    loader = DataLoader(
        _Pictures(split, training.resolution), batch_size=training.batch_size, shuffle=True, drop_last=True
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=4e-5)
    model.train()
    while True:
        torch.set_num_threads(machine.cores())
        began = time.perf_counter()
        seen = 0
        for images, labels in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            seen += len(labels)
        seconds = time.perf_counter() - began
        torch.set_num_threads(1)
        yield seen / seconds


if __name__ == "__main__":
    main()

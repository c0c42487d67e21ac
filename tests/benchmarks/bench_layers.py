"""How fast BatchNorm is in training, ours against torch's: by the number of channels, and in a network's step.

    python tests/benchmarks/bench_layers.py [--channels 4 8 12 20 24 28] [--sizes 112 56] [--rounds 9]
    python tests/benchmarks/bench_layers.py --network studies/record/mobilenet.pth [--resolutions 160 224]

A part of 32 images on one core, channels last, forward and backward. Prints core-milliseconds and the ratio of torch's
to ours; the two take turns within one run, and a ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import pruner
from pruner.data.batches import train_batches
from pruner.data.datasets import Split
from pruner.system import machine
from pruner.train import Training
from pruner.training import parts
from pruner.training.layers import batch_norm
from pruner.training.step import Step

IMAGES = 32
KINDS = (torch.float32, torch.bfloat16)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[4, 8, 12, 20, 24, 28])
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 56])
    parser.add_argument("--network", type=Path, help="whole steps of this network, instead of one layer")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[160, 224])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    machine.prepare(threads=1)
    print(f"{machine.processor()}, one core, torch {torch.__version__}; parts of {IMAGES} images")
    if options.network:
        for kind, pixels in itertools.product(KINDS, options.resolutions):
            _compare(f"{_name(kind)}, {pixels} px", _steps(options.network, pixels, _name(kind)), options.rounds)
    else:
        for kind, pixels, channels in itertools.product(KINDS, options.sizes, options.channels):
            _compare(
                f"{_name(kind)}, {pixels} px, {channels} channels", _layers(kind, pixels, channels), options.rounds
            )


def _layers(kind: torch.dtype, pixels: int, channels: int) -> list[Callable[[], object]]:
    shape = (IMAGES, channels, pixels, pixels)
    images, gradient = (torch.randn(shape, dtype=kind).to(memory_format=torch.channels_last) for _ in range(2))
    images.requires_grad_()
    norm = nn.BatchNorm2d(channels)
    return [lambda way=way: _back(way(norm, images), images, gradient) for way in (nn.BatchNorm2d.forward, batch_norm)]


def _back(outputs: Tensor, images: Tensor, gradient: Tensor) -> None:
    images.grad = None
    outputs.backward(gradient)


def _steps(file: Path, pixels: int, precision: str) -> list[Callable[[], object]]:
    images = torch.randint(0, 256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    split = Split(images, torch.zeros(IMAGES, dtype=torch.long))
    batch = next(train_batches(split, batch_size=IMAGES, seed=0, epoch=0, flip=False, random_shift=0))
    training = Training(epochs=1, batch_size=IMAGES, resolution=pixels, precision=precision, learning_rate=1e-4)
    found: list[Callable[[], object]] = []
    for way in (nn.BatchNorm2d.forward, batch_norm):
        step = Step(pruner.load(file), training, torch.device("cpu"))
        parts.batch_norm = way  # type: ignore[assignment]
        step.begin(training)
        step(batch, None, 1e-4, 0, 1)  # in which the replicas get their layers
        found.append(lambda step=step: step(batch, None, 1e-4, 0, 1))
    return found


def _compare(text: str, ways: Sequence[Callable[[], object]], count: int) -> None:
    rounds = [[_seconds(way) for way in ways] for _ in range(count + 1)][1:]
    torchs, ours = (1000 * statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(theirs / own for theirs, own in rounds)
    print(f"{text}: torch {torchs:6.2f} ms, ours {ours:6.2f} ms, ratio {ratio:.2f}", flush=True)


def _seconds(way: Callable[[], object]) -> float:
    began = time.thread_time()
    way()
    return time.thread_time() - began


def _name(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


if __name__ == "__main__":
    main()

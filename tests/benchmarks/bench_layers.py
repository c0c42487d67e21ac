"""How fast BatchNorm is in training, ours against torch's, by the number of channels.

    python tests/benchmarks/bench_layers.py [--channels 4 8 12 20 24 28] [--sizes 112 56] [--rounds 9]

A part of 32 images on one core, channels last, forward and backward. Prints core-milliseconds and the ratio of torch's
to ours; the two take turns within one run, and a ratio is the median over the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pruner.system import machine
from pruner.training.layers import batch_norm


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, nargs="+", default=[4, 8, 12, 20, 24, 28])
    parser.add_argument("--sizes", type=int, nargs="+", default=[112, 56])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    machine.prepare(threads=1)
    print(f"{machine.processor()}, one core, torch {torch.__version__}; parts of 32 images")
    for kind, size, channels in itertools.product((torch.float32, torch.bfloat16), options.sizes, options.channels):
        images, gradient = (
            torch.randn(32, channels, size, size, dtype=kind).to(memory_format=torch.channels_last) for _ in range(2)
        )
        images.requires_grad_()
        norm = nn.BatchNorm2d(channels)
        ways: list[Callable[[Tensor], Tensor]] = [norm, lambda inputs, norm=norm: batch_norm(norm, inputs)]
        rounds = [[_seconds(way, images, gradient) for way in ways] for _ in range(options.rounds + 1)][1:]
        torchs, ours = (1000 * statistics.median(column) for column in zip(*rounds, strict=True))
        ratio = statistics.median(theirs / own for theirs, own in rounds)
        print(
            f"{str(kind).removeprefix('torch.'):8} {size:3} px {channels:3} channels: torch {torchs:6.2f} ms, "
            f"ours {ours:6.2f} ms, ratio {ratio:.2f}",
            flush=True,
        )


def _seconds(way: Callable[[Tensor], Tensor], images: Tensor, gradient: Tensor) -> float:
    images.grad = None
    began = time.thread_time()
    way(images).backward(gradient)
    return time.thread_time() - began


if __name__ == "__main__":
    main()

"""A sensitivity scan, which computes what lies before the scanned layer once, against computing everything anew.

    python tests/benchmarks/bench_scan.py MODEL.pth [--images 100] [--data-root DIR]

Both zero half of every weight tensor in turn and classify the same images at 224 px; prints seconds of both, their
ratio, and whether the accuracies are equal.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from pathlib import Path

from pruner.data.loading import load
from pruner.measurement.measure import accuracy, evaluate
from pruner.network.loading import load_network
from pruner.system.machine import prepare
from pruner.weights.masks import apply_masks, score_weights, threshold_mask
from pruner.weights.sensitivity import scan_weights


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("CIFAR10_ROOT"))
    options = parser.parse_args()
    prepare()
    model = load_network(options.model)
    split = load("cifar10", options.data_root and Path(options.data_root)).holdout.first(options.images)
    scores = score_weights(model, "magnitude")
    evaluate(model, split, resolution=224, batch_size=50)  # warms up
    began = time.perf_counter()
    found = [point.accuracy for point in scan_weights(model, split, scores, [0.5], resolution=224)]
    scanned = time.perf_counter() - began
    anew = []
    began = time.perf_counter()
    for name, score in scores.items():
        pruned = copy.deepcopy(model)
        apply_masks(pruned, {name: threshold_mask(score, 0.5)})
        anew.append(accuracy(evaluate(pruned, split, resolution=224, batch_size=50)))
    everything = time.perf_counter() - began
    print(f"scan {scanned:.1f} s, everything anew {everything:.1f} s, ratio {everything / scanned:.2f}, "
          f"{'equal' if found == anew else 'DIFFERENT'} accuracies")  # fmt: skip


if __name__ == "__main__":
    main()

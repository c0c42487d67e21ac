"""Score against core-seconds: an Optuna script as one writes it in an afternoon, ModelOpt's FastNAS, and ours.

    python tests/benchmarks/bench_peers.py MODEL.pth [--ways script fastnas ours] [--trials 6] [--threads 1] [--quick]

MODEL.pth is the dense network, the images are CIFAR-10's, one thread each. The script prunes by Torch-Pruning's own
pruner (a ratio for each stage, the importance and the rate by TPE, one cut), then trains on 6,400 images from a
DataLoader as in the course's lab. FastNAS, where nvidia-modelopt and torchprofile (0.0.4) are installed, searches for
25 % of the operations, scored on the holdout, then trains on 12,000 images. Ours prunes to as many operations and
reconstructs; nothing is trained. Prints each way's best MFLOPs, holdout accuracy, score and core-seconds; a full run
takes about a core-hour. --quick: a few images each, to see that it works.
"""

from __future__ import annotations

import argparse
import copy
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models.mobilenetv2 import InvertedResidual, MobileNetV2
from torchvision.transforms import v2

import pruner
from pruner.data.batches import MEAN, STD
from pruner.data.datasets import Dataset, Split
from pruner.measurement.measure import accuracy, count, evaluate
from pruner.system import machine
from pruner.system.extras import has
from search.study.score import ScoreRule

SHARE = 0.25
"""Of the dense network's operations, for FastNAS and ours."""
STAGES = (2, 4, 7, 11, 14, 17, 18)
"""The first block after each of the script's stages, as torchvision numbers them."""


@dataclass(frozen=True)
class Budget:
    """How many images each part may see."""

    script: int = 6_400
    fastnas: int = 12_000
    scored: int = 256
    judged: int = 1_000
    reconstructed: int = 640


@dataclass(frozen=True)
class Reached:
    """Where a way has got to."""

    mflops: float
    accuracy: float

    @property
    def score(self) -> float:
        return ScoreRule()(self.mflops, self.accuracy)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--trials", type=int, default=6, help="of the script")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    machine.prepare(options.threads)
    torch.set_num_threads(options.threads)
    budget = Budget(128, 128, 32, 64, 64) if options.quick else Budget()
    root = os.environ.get("CIFAR10_ROOT")
    data, dense = pruner.load_data("cifar10", root and Path(root)), pruner.load(options.model)
    print(f"{options.threads} thread(s), torch {torch.__version__}")
    for way in options.ways:
        if way == "fastnas" and not (has("modelopt") and has("torchprofile")):
            print("fastnas: nvidia-modelopt and torchprofile are not installed")
            continue
        began = time.process_time()
        found = WAYS[way](dense, data, budget, options.trials)
        print(
            f"{way:8} {found.mflops:6.1f} MFLOPs  {found.accuracy:6.2%} of {budget.judged:,} holdout images  "
            f"score {found.score:7.2f}  {time.process_time() - began:7,.0f} core-seconds",
            flush=True,
        )


def script(dense: MobileNetV2, data: Dataset, budget: Budget, trials: int) -> Reached:
    """The best of a few trials, each pruned once and trained for an epoch."""
    reached: list[Reached] = []

    def objective(trial: optuna.Trial) -> float:
        model = copy.deepcopy(dense)
        importances: dict[str, Callable[[], Any]] = {
            "l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
            "l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
            "taylor": tp.importance.GroupTaylorImportance,
            "lamp": tp.importance.LAMPImportance,
        }
        importance = trial.suggest_categorical("importance", list(importances))
        rate = trial.suggest_float("learning_rate", 1e-3, 0.2, log=True)
        ratios: dict[nn.Module, float] = {}
        for stage, end in enumerate(STAGES):
            ratio = trial.suggest_float(f"ratio{stage}", 0.0, 0.8)
            for block in model.features[STAGES[stage - 1] if stage else 1 : end]:
                assert isinstance(block, InvertedResidual)
                ratios[block.conv[0][0]] = ratio
        if importance == "taylor":
            images, labels = next(_batches(data.train, 64, 64))
            F.cross_entropy(model(images), labels).backward()
        tp.pruner.BasePruner(
            model, torch.zeros(1, 3, 224, 224), importance=importances[importance](), pruning_ratio=0.0,
            pruning_ratio_dict=ratios, ignored_layers=[model.classifier[1]], round_to=8,
        ).step()  # fmt: skip
        _train(model, data.train, budget.script, rate)
        reached.append(_judged(model, data, budget))
        return reached[-1].score

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0)).optimize(objective, trials)
    return max(reached, key=lambda one: one.score)


def fastnas(dense: MobileNetV2, data: Dataset, budget: Budget, _trials: int) -> Reached:
    """What ModelOpt finds with its defaults, trained for a while."""
    import modelopt.torch.prune as mtp

    scored = data.holdout.first(budget.scored)
    model, _ = mtp.prune(
        copy.deepcopy(dense), mode="fastnas", constraints={"flops": f"{SHARE:.0%}"},
        dummy_input=torch.zeros(1, 3, 224, 224),
        config={
            "data_loader": list(_batches(data.train, budget.scored, 32)), "collect_func": lambda batch: batch[0],
            "score_func": lambda one: accuracy(evaluate(one, scored, resolution=224)),
        },
    )  # fmt: skip
    _train(model, data.train, budget.fastnas, 0.01)
    return _judged(model, data, budget)


def ours(dense: MobileNetV2, data: Dataset, budget: Budget, _trials: int) -> Reached:
    """Pruned by error curves and reconstructed; nothing is trained."""
    resources = pruner.InMemory(data=data, dense=dense, resolution=224, reconstruction_images=budget.reconstructed)
    target = SHARE * count(dense)[0]
    prune = pruner.Prune(importance="obs", target_mflops=target, reconstruct=True, round_to=8)
    recipe = pruner.Recipe(prune=prune, train=pruner.Training(epochs=0))
    return _judged(pruner.compress(dense, recipe, resources), data, budget)


WAYS: dict[str, Callable[[MobileNetV2, Dataset, Budget, int], Reached]] = {
    "script": script, "fastnas": fastnas, "ours": ours,
}  # fmt: skip


def _judged(model: nn.Module, data: Dataset, budget: Budget) -> Reached:
    right = evaluate(model, data.holdout.first(budget.judged), resolution=224)
    return Reached(count(model)[0], accuracy(right))


def _batches(split: Split, images: int, size: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """As the lab has them: a DataLoader over PIL images, resized to 224 px one by one."""
    change = v2.Compose(
        [
            v2.Resize((224, 224)),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    drawn = split.drawn(images, 0)
    pairs = list(zip(drawn.images, drawn.labels, strict=True))
    for few, labels in DataLoader(pairs, batch_size=size, shuffle=True, generator=torch.Generator().manual_seed(0)):  # type: ignore[arg-type]
        yield torch.stack([change(image) for image in few]), labels


def _train(model: nn.Module, split: Split, images: int, rate: float) -> None:
    model.train().requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=4e-5, nesterov=True)
    steps = -(-images // 64)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for batch, labels in _batches(split, images, 64):
        optimizer.zero_grad()
        F.cross_entropy(model(batch), labels).backward()
        optimizer.step()
        schedule.step()


if __name__ == "__main__":
    main()

"""Choose how a training is executed: measured once per network, phase and machine, and stored."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.data.datasets import Dataset
from pruner.network.count import count_of
from pruner.network.mobilenet import classes, widths
from pruner.system.files import read_object, write_json
from pruner.system.machine import processor
from pruner.train import Phase, Training
from pruner.training.execution import best
from pruner.training.fine_tune import epoch_images
from search.storage.filesystem import locked
from search.storage.folder import StudyFolder
from search.terminal.progress import Progress

_LONG = 1e6
"""Millions of operations (forward, over all images of a phase) above which a phase is measured: minutes on two cores.
Shorter phases are eager, so that their numbers are the same on every run."""


def with_executions(
    model: nn.Module, training: Training, data: Dataset, folder: StudyFolder, progress: Progress
) -> Training:
    """`training` with every `auto` that is worth measuring replaced by the fastest; `model` is unchanged."""
    parts = training.parts
    chosen = [_execution(model, part, data, folder, progress) for part in parts]
    if not training.phases:
        return replace(training, execution=chosen[0])
    phases: list[Phase] = [
        replace(phase, execution=execution) for phase, execution in zip(training.phases, chosen, strict=True)
    ]
    return replace(training, phases=tuple(phases))


def _execution(model: nn.Module, part: Training, data: Dataset, folder: StudyFolder, progress: Progress) -> str:
    if part.execution != "auto":
        return part.execution
    assert isinstance(model, MobileNetV2)
    images = sum(epoch_images(data.train, part))
    mflops = count_of(widths(model), classes(model))[0] * (part.resolution / 224) ** 2
    if images * mflops < _LONG:
        return "auto"
    device = data.train.images.device
    key = (
        f"{mflops:.3f} MFLOPs, batches of {part.batch_size} at {part.resolution} px, {images} images, "
        f"{torch.get_num_threads()} threads of {device} ({processor()}), torch {torch.__version__}"
    )
    path = folder.speeds
    with locked(path.with_suffix(".lock")):
        kept = read_object(path)
        if key not in kept:
            with progress.task(f"measuring how to train fastest at {part.resolution} px", 0):
                model.to(device)
                execution, speeds = best(model, (part.batch_size, part.resolution), images)
            rounded = {name: round(speed, 1) for name, speed in speeds.items()}
            kept[key] = {"execution": execution, "images_per_second": rounded}
            write_json(path, kept)
            said = ", ".join(f"{name} {speed:g}" for name, speed in rounded.items())
            progress.line(f"Training at {part.resolution} px is {execution} (images/s: {said}).")
    found: str = kept[key]["execution"]
    return found

"""The dense network that a study prunes: given as a file, or trained here once and stored."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.data.datasets import Dataset
from pruner.exports.module import export_module
from pruner.measurement.measure import accuracy, evaluate
from pruner.network.count import count_of
from pruner.network.loading import load_network
from pruner.network.mobilenet import fresh, imagenet, widths, with_new_classifier
from pruner.system.checkpoint import load_state, save_state
from pruner.system.files import read_object, write_json
from pruner.system.hashes import json_hash
from pruner.training.fine_tune import epoch_images, fine_tune
from search.filesystem import locked
from search.results.records import Dense
from search.storage.folder import StudyFolder
from search.study.sections import training
from search.study.spec import StudySpec
from search.terminal.progress import Progress


def given_file(spec: StudySpec, option: Path | None) -> Path | None:
    """The trained dense network that --dense, the study file or PRUNE_SEARCH_BASE names, if any."""
    if option is not None:
        return option
    if spec.dense.checkpoint:
        return Path(spec.dense.checkpoint).expanduser()
    if spec.data.name == "cifar10" and (path := os.environ.get("PRUNE_SEARCH_BASE")):
        return Path(path)
    return None


def trained_file(spec: StudySpec, data: Dataset, folder: StudyFolder) -> Path:
    """The file for the dense network that a study trains; studies with equal settings share it."""
    settings = {
        "dense": {name: value for name, value in asdict(spec.dense).items() if name != "checkpoint"},
        "data": _data_settings(spec, data),
        "seed": spec.seed,
    }
    return folder.dense / f"{spec.data.name}-{json_hash(settings)}.pth"


def data_hash(spec: StudySpec, data: Dataset) -> str:
    """The hash of the data set, how the study splits it, and the resolution at which it is classified."""
    return json_hash({"data": _data_settings(spec, data), "seed": spec.seed})


def _data_settings(spec: StudySpec, data: Dataset) -> dict[str, Any]:
    """Everything by which data sets differ: a folder whose images have changed is another one."""
    # A key that is left out adds nothing, so that what earlier versions computed is found under its hash.
    settings = spec.data.model_dump(mode="json", exclude={"root"}, exclude_none=True)
    return settings | ({"fingerprint": data.fingerprint} if data.fingerprint else {})


def dense_file(spec: StudySpec, data: Dataset, folder: StudyFolder, option: Path | None, progress: Progress) -> Path:
    """The file of the study's dense network, which is trained first if none is given or stored."""
    return given_file(spec, option) or train_dense(spec, data, folder, progress)


def train_dense(spec: StudySpec, data: Dataset, folder: StudyFolder, progress: Progress) -> Path:
    """Fine-tune a dense network as `[dense]` says, if that is not done yet; returns its file.

    A killed run resumes from its last epoch. If another process is training the same network, this one waits for it.
    """
    path = trained_file(spec, data, folder)
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            _train(spec, data, path, folder, progress)
    return path


def dense_figures(model: MobileNetV2, key: str, spec: StudySpec, data: Dataset, folder: StudyFolder) -> Dense:
    """Describe the dense network; its accuracy only if a study beside this one has measured it.

    `key` is the hash of the network's weights.
    """
    mflops, params = count_of(widths(model), data.classes, spec.prune.count_resolution)
    kept = read_object(_accuracy_file(key, spec, data, folder)).get("accuracy")
    return Dense(
        mflops=mflops, params=params, accuracy=kept, classes=data.classes, widths=widths(model),
        resolution=spec.prune.count_resolution,
        class_names=list(data.class_names), train_images=len(data.train),
    )  # fmt: skip


def dense_accuracy(
    model: MobileNetV2, key: str, spec: StudySpec, data: Dataset, folder: StudyFolder, progress: Progress
) -> float:
    """Measure the dense network on the holdout, once per network and data set; later calls read it from disk."""
    path = _accuracy_file(key, spec, data, folder)
    with locked(path.with_suffix(".lock")):
        kept = read_object(path)
        if not kept:
            with progress.task("dense network, holdout", len(data.holdout)) as bar:
                right = evaluate(model, data.holdout, resolution=spec.data.resolution, on_images=bar.advance)
            kept = {"accuracy": accuracy(right)}
            write_json(path, kept)
            progress.line(f"Dense network: {accuracy(right):.2%} of the holdout.")
    found: float = kept["accuracy"]
    return found


def _accuracy_file(key: str, spec: StudySpec, data: Dataset, folder: StudyFolder) -> Path:
    return folder.dense / f"{data.name}-{key}-{data_hash(spec, data)}.json"


def _train(spec: StudySpec, data: Dataset, path: Path, folder: StudyFolder, progress: Progress) -> None:
    kept = path.with_suffix(".checkpoint")
    resume = load_state(kept)
    model = _start(spec, data)
    how = training(spec.dense, spec.dense.learning_rate, spec.seed, spec.data)
    images = epoch_images(data.train, how)
    begun = resume["epoch"] if resume else 0
    title, epoch_count = "dense network", how.total_epochs
    with progress.task(title, sum(images), done=sum(images[:begun])) as bar:
        bar.say(f"{title}, epoch {begun + 1}/{epoch_count}")
        epochs = fine_tune(
            model,
            data.train,
            how,
            mirrors=data.mirrors,
            resolution=spec.data.resolution,
            resume=resume,
            on_images=bar.advance,
        )
        for epoch in epochs:
            save_state(kept, epoch.state)
            progress.line(
                f"{title}: epoch {epoch.number}/{epoch_count}, loss {epoch.loss:.3f}, {epoch.accuracy:.2%} of its "
                f"training images, {epoch.images / epoch.seconds:.0f} images/s"
            )
            bar.say(f"{title}, epoch {epoch.number + 1}/{epoch_count}")
    export_module(model, path)
    kept.unlink(missing_ok=True)


def _start(spec: StudySpec, data: Dataset) -> MobileNetV2:
    if spec.dense.init == "random":
        return fresh(data.classes, spec.seed)
    if spec.dense.init == "imagenet":
        return imagenet(data.classes, spec.seed)
    start = load_network(Path(spec.dense.init).expanduser(), to_prune=True)
    return with_new_classifier(start, data.classes, spec.seed)

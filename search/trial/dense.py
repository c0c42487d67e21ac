"""The dense network that a study prunes: given as a file, or trained here once and kept."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.data.datasets import Dataset
from pruner.exports.module import export_module
from pruner.measurement.measure import accuracy, evaluate
from pruner.network.count import count_of
from pruner.network.loading import load_network
from pruner.network.mobilenet import fresh, imagenet, widths, with_new_classifier
from pruner.system.checkpoint import load_state, save_state
from pruner.system.files import read_object, write_json
from pruner.training.fine_tune import epoch_images, fine_tune
from search.results.records import Dense
from search.storage.filesystem import locked
from search.storage.folder import StudyFolder
from search.study.spec import StudySpec
from search.terminal.progress import Progress
from search.trial.speed import with_executions


def given_file(spec: StudySpec, option: Path | None) -> Path | None:
    """The finished dense network that was given, if any: by --base, by the study file, by PRUNE_SEARCH_BASE."""
    if option is not None:
        return option
    if spec.base.file:
        return Path(spec.base.file).expanduser()
    if spec.data.name == "cifar10" and (path := os.environ.get("PRUNE_SEARCH_BASE")):
        return Path(path)
    return None


def trained_file(spec: StudySpec, folder: StudyFolder) -> Path:
    """Where the dense network that a study asks for is kept once it is trained; equal settings share it."""
    settings = {
        "base": spec.base.model_dump(mode="json", exclude={"file"}),
        "data": spec.data.model_dump(mode="json", exclude={"root"}),
        "seed": spec.seed,
    }
    return folder.dense / f"{spec.data.name}-{_digest(settings)}.pth"


def data_key(spec: StudySpec) -> str:
    """Stands for how a study divides its data set and at which resolution it looks at it."""
    return _digest({"data": spec.data.model_dump(mode="json", exclude={"root"}), "seed": spec.seed})


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def dense_file(spec: StudySpec, data: Dataset, folder: StudyFolder, option: Path | None, progress: Progress) -> Path:
    """The study's dense network; trained first where none is given or kept."""
    return given_file(spec, option) or train_dense(spec, data, folder, progress)


def train_dense(spec: StudySpec, data: Dataset, folder: StudyFolder, progress: Progress) -> Path:
    """Fine-tune a dense network as `[base]` says, if that is not done yet; returns its file.

    Goes on from the last epoch if it was killed; if another process is at it, waits for that one.
    """
    path = trained_file(spec, folder)
    with locked(path.with_suffix(".lock")):
        if not path.exists():
            _train(spec, data, path, folder, progress)
    return path


def measure_dense(
    model: MobileNetV2, key: str, spec: StudySpec, data: Dataset, folder: StudyFolder, progress: Progress
) -> Dense:
    """What the dense network has on the holdout; found once for a network and its data, then read from disk.

    `key` stands for the network's weights.
    """
    path = folder.dense / f"{data.name}-{key}-{data_key(spec)}.json"
    with locked(path.with_suffix(".lock")):
        kept = read_object(path)
        if not kept:
            with progress.task("dense network, holdout", len(data.holdout)) as bar:
                right = evaluate(model, data.holdout, resolution=spec.data.resolution, on_images=bar.advance)
            kept = {"accuracy": accuracy(right)}
            write_json(path, kept)
            progress.line(f"Dense network: {accuracy(right):.2%} of the holdout.")
    mflops, params = count_of(widths(model), data.classes)
    return Dense(mflops=mflops, params=params, accuracy=kept["accuracy"], classes=data.classes, widths=widths(model))


def _train(spec: StudySpec, data: Dataset, path: Path, folder: StudyFolder, progress: Progress) -> None:
    kept = path.with_suffix(".checkpoint")
    resume = load_state(kept)
    model = _start(spec, data)
    tune = spec.base.tune(spec.base.learning_rate, spec.seed, spec.data)
    tune = with_executions(model, tune, data, folder, progress)
    images = epoch_images(data.train, tune)
    begun = resume["epoch"] if resume else 0
    title, epoch_count = "dense network", tune.total_epochs
    with progress.task(title, sum(images), done=sum(images[:begun])) as bar:
        bar.say(f"{title}, epoch {begun + 1}/{epoch_count}")
        epochs = fine_tune(model, data.train, tune, mirrors=data.mirrors, resume=resume, on_images=bar.advance)
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
    if spec.base.init == "random":
        return fresh(data.classes, spec.seed)
    if spec.base.init == "imagenet":
        return imagenet(data.classes, spec.seed)
    start = load_network(Path(spec.base.init).expanduser(), to_prune=True)
    return with_new_classifier(start, data.classes, spec.seed)

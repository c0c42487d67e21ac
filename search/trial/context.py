"""What all trials of a study share: data, dense network, channel scores."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.channels.importance import NEED_IMAGES, Scores, score_channels
from pruner.channels.plan import ChannelPlan, needs_curves
from pruner.channels.reconstruct import Targets, look, repair
from pruner.data.datasets import Dataset, Split, load
from pruner.measurement.latency import Backend, Latency, latency
from pruner.network.loading import load_dense
from pruner.recipe import Prune
from pruner.system.checkpoint import load_state, save_state
from pruner.system.seeds import mix
from pruner.training.distill import Teacher
from pruner.weights.masks import score_weights
from search.results.records import Dense
from search.storage.filesystem import locked
from search.storage.folder import StudyFolder
from search.study.spec import StudySpec
from search.study.text import DENSE
from search.terminal.progress import Progress
from search.trial.dense import dense_file, measure_dense
from search.trial.parent import Parent, load_parent
from search.trial.teacher import open_teacher


@dataclass(frozen=True, slots=True)
class Bench:
    """Made once per worker; only what trials ask for is filled in, and kept."""

    spec: StudySpec
    folder: StudyFolder
    data: Dataset
    """On the device of training."""
    dense: MobileNetV2
    """On the CPU, in eval mode; never changed."""
    dense_file: Path
    """Where that network was read from."""
    key: str
    """Stands for the dense network's weights."""
    dense_figures: Dense
    progress: Progress
    _scores: dict[str, Scores] = field(default_factory=dict)
    _parents: dict[str, Parent] = field(default_factory=dict)
    _looked: dict[str, Targets] = field(default_factory=dict)

    def parent(self, name: str) -> Parent:
        """The network of that name, to cut: the dense one, or another study's. Raises InputError if it is not there."""
        if name not in self._parents:
            model = self.dense if name == DENSE else load_parent(name, self.spec, self.folder, self.data.classes)
            self._parents[name] = Parent(model, self.key if name == DENSE else weights_key(model))
        return self._parents[name]

    def scores(self, importance: str, parent: Parent) -> Scores:
        """Its channels' scores by that importance: computed once for a study, then read from its folder."""
        path = self.folder.scores(importance, parent.key)
        if path.name not in self._scores:
            with locked(path.with_suffix(".lock")):
                kept = load_state(path)
                if kept is None:
                    kept = self._compute_scores(importance, parent)
                    save_state(path, kept)
            self._scores[path.name] = kept
        return self._scores[path.name]

    def weight_scores(self, model: nn.Module, importance: str) -> dict[str, Tensor]:
        """The importance of every weight of a network, which may have been cut."""
        images = calibration(self.data.train, self.spec.prune.calibration_images, self.spec.seed)
        with self.progress.task(f"{importance}: ranking weights", len(images)) as bar:
            return score_weights(
                model, importance, images, resolution=self.spec.data.resolution, on_images=bar.advance
            )  # fmt: skip

    def rankings(self, prune: Prune, parent: Parent) -> tuple[Scores, Scores | None]:
        """(channel scores, removal curves where they are needed) for `make_plan`."""
        curves = self.scores("reconstruction", parent) if needs_curves(prune) else None
        return self.scores(prune.importance, parent), curves

    def look(self, model: nn.Module) -> Targets:
        """What a network gives where one cut from it is fitted to it (`repair`); the last parent's is kept."""
        names = [name for name, parent in self._parents.items() if parent.model is model]
        if names and names[0] in self._looked:
            return self._looked[names[0]]
        assert isinstance(model, MobileNetV2)
        images = self._repair_images()
        with self.progress.task("looking at the network before the cut", len(images)) as bar:
            found = look(
                copy.deepcopy(model).to(images.images.device), images,
                resolution=self.spec.data.resolution, seed=self.spec.seed, on_images=bar.advance,
            )  # fmt: skip
        if names:
            self._looked.clear()  # a gigabyte or so
            self._looked[names[0]] = found
        return found

    def repair(
        self, model: nn.Module, targets: Targets, plan: ChannelPlan, masks: Mapping[str, Tensor] | None = None
    ) -> None:
        """Re-fit the network that a plan, and maybe masks, have made of the one that was looked at, in place."""
        images = self._repair_images()
        assert isinstance(model, MobileNetV2)
        with self.progress.task("repairing the cut", len(images)) as bar:
            repair(
                model.to(images.images.device), targets, plan, images,
                masks=masks, resolution=self.spec.data.resolution, seed=self.spec.seed, on_images=bar.advance,
            )  # fmt: skip

    def _repair_images(self) -> Split:
        return calibration(self.data.train, self.spec.prune.repair_images, self.spec.seed)

    def teacher(self) -> Teacher:
        """The dense network's logits for all training images."""
        return open_teacher(self.dense, self.key, self.spec, self.data, self.folder, self.progress)

    def _compute_scores(self, importance: str, parent: Parent) -> Scores:
        by_gradients = importance != "reconstruction"
        count = self.spec.prune.calibration_images if by_gradients else self.spec.prune.repair_images
        images = calibration(self.data.train, count, self.spec.seed)
        seen = len(images) if importance in NEED_IMAGES else 0
        with self.progress.task(f"{importance}: ranking channels", seen) as bar:
            return score_channels(
                parent.model,
                importance,
                images,
                resolution=self.spec.data.resolution,
                seed=self.spec.seed,
                on_images=bar.advance,
            )


def open_data(spec: StudySpec, root: Path | None, device: torch.device) -> Dataset:
    """The study's data set, on the device. `root`, from the command line, comes before the study file's."""
    if root is None and spec.data.root:
        root = Path(spec.data.root).expanduser()
    return load(spec.data.name, root, holdout=spec.data.holdout, seed=spec.seed).to(device)


def open_bench(spec: StudySpec, folder: StudyFolder, data: Dataset, base: Path | None, progress: Progress) -> Bench:
    """Load, and where necessary compute, what trials share.

    Raises InputError if the dense network's file is not a MobileNetV2 for the data's classes.
    """
    path = dense_file(spec, data, folder, base, progress)
    dense = load_dense(path, data.classes)
    key = weights_key(dense)
    figures = measure_dense(dense, key, spec, data, folder, progress)
    return Bench(spec, folder, data, dense, path, key, figures, progress)


def calibration(train: Split, count: int, seed: int) -> Split:
    """`count` training images chosen by the seed."""
    return train.drawn(count, mix(seed, 0xCA11))


def measure_latency(model: nn.Module, spec: StudySpec, backend: Backend | None = None) -> Latency:
    """A network's latency as the study measures it; `backend`: another than the study's."""
    how = spec.latency
    return latency(
        model,
        resolution=spec.data.resolution,
        batch=how.batch,
        threads=how.threads,
        backend=backend or how.backend,
        runs=how.runs,
    )


def weights_key(model: nn.Module) -> str:
    """A short name for exactly these weights."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]

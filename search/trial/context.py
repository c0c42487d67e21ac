"""What all trials of a study share: data, dense network, channel scores."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.channels.importance import Scores
from pruner.channels.plan import ChannelPlan
from pruner.channels.reconstruct import Targets
from pruner.data.datasets import Dataset
from pruner.measurement.latency import Backend, Latency, latency
from pruner.network.loading import load_dense
from pruner.resources import InMemory
from pruner.system.checkpoint import load_state, save_state
from pruner.system.hashes import weights_hash
from pruner.training.distill import Teacher
from pruner.weights.masks import Masks
from search.filesystem import locked
from search.results.records import Dense
from search.storage.folder import StudyFolder
from search.study.spec import StudySpec
from search.study.text import DENSE
from search.terminal.progress import Progress
from search.trial.dense import dense_accuracy, dense_figures, dense_file
from search.trial.parent import Parent, load_parent
from search.trial.teacher import open_teacher


@dataclass(frozen=True, slots=True)
class Context:
    """The resources of `pruner.compression` for the trials of a study: stored on disk, shared by its workers.

    Each worker makes one. What trials ask for is computed on demand and kept.
    """

    spec: StudySpec
    folder: StudyFolder
    data: Dataset
    """On the training device."""
    dense: MobileNetV2
    """On the CPU, in eval mode; never changed."""
    dense_file: Path
    """The file that `dense` was read from."""
    dense_hash: str
    """The hash of the dense network's weights."""
    dense_figures: Dense
    progress: Progress
    _scores: dict[str, Scores] = field(default_factory=dict)
    _parents: dict[str, Parent] = field(default_factory=dict)
    _targets: dict[str, Targets] = field(default_factory=dict)

    @property
    def resolution(self) -> int:
        """Pixels a side at which the study classifies images."""
        return self.spec.data.resolution

    @property
    def limits(self) -> dict[str, float]:
        """Constraint -> its limit, see `search.study.constraints`."""
        return self.spec.constraints.limits(self.dense_figures.mflops, self.dense_figures.accuracy)

    def parent(self, name: str) -> Parent:
        """The network of that name, to prune: the dense one, or one from another study.

        Raises InputError if it does not exist.
        """
        if name not in self._parents:
            model = self.dense if name == DENSE else load_parent(name, self.spec, self.folder, self.data.classes)
            self._parents[name] = Parent(model, self.dense_hash if name == DENSE else weights_hash(model))
        return self._parents[name]

    def scores(self, importance: str, model: MobileNetV2) -> Scores:
        """A parent's channel scores by that importance: computed once per study, then read from its folder."""
        path = self.folder.scores(importance, self._known_hash(model) or weights_hash(model))
        if path.name not in self._scores:
            with locked(path.with_suffix(".lock")):
                kept = load_state(path)
                if kept is None:
                    kept = self._compute_scores(importance, model)
                    save_state(path, kept)
            self._scores[path.name] = kept
        return self._scores[path.name]

    def weight_scores(self, importance: str, model: nn.Module) -> dict[str, Tensor]:
        """The importance of every weight of a network, pruned or not."""
        with self.progress.task(f"{importance}: ranking weights", self.spec.prune.calibration_images) as bar:
            return self._in_memory.weight_scores(importance, model, bar.advance)

    def targets(self, model: MobileNetV2) -> Targets:
        """The layer outputs of a network, as targets for refitting another one; those of the last parent are kept."""
        key = self._known_hash(model)
        if key in self._targets:
            return self._targets[key]
        with self.progress.task("recording targets for reconstruction", self.spec.prune.reconstruction_images) as bar:
            found = self._in_memory.targets(model, bar.advance)
        if key is not None:
            self._targets.clear()  # about a gigabyte
            self._targets[key] = found
        return found

    def reconstruct(self, model: MobileNetV2, targets: Targets, plan: ChannelPlan, masks: Masks | None = None) -> None:
        """Refit `model` in place; `plan`, and `masks` if given, made it from the network that `targets` come from."""
        with self.progress.task("reconstructing", self.spec.prune.reconstruction_images) as bar:
            self._in_memory.reconstruct(model, targets, plan, masks, bar.advance)

    def teacher(self) -> Teacher:
        """The dense network's logits for all training images."""
        return open_teacher(self.dense, self.dense_hash, self.spec, self.data, self.folder, self.progress)

    @property
    def _in_memory(self) -> InMemory:
        prune = self.spec.prune
        return InMemory(
            data=self.data, resolution=self.resolution, calibration_images=prune.calibration_images,
            reconstruction_images=prune.reconstruction_images, seed=self.spec.seed,
        )  # fmt: skip

    def _known_hash(self, model: nn.Module) -> str | None:
        """The hash of a parent's weights; None for another network."""
        return next((parent.hash for parent in self._parents.values() if parent.model is model), None)

    def _compute_scores(self, importance: str, model: MobileNetV2) -> Scores:
        seen = len(self._in_memory.ranking_images(importance))
        with self.progress.task(f"{importance}: ranking channels", seen) as bar:
            return self._in_memory.scores(importance, model, bar.advance)


def open_context(
    spec: StudySpec, folder: StudyFolder, data: Dataset, given: Path | None, loaded: MobileNetV2 | None,
    progress: Progress,
) -> Context:  # fmt: skip
    """Load what trials share; compute it where necessary. `loaded`: the network of the given file, if already read.

    Raises InputError if the dense network's file is not a MobileNetV2 for the data's classes.
    """
    path = dense_file(spec, data, folder, given, progress)
    dense = load_dense(path, data.classes) if loaded is None else loaded
    key = weights_hash(dense)
    figures = dense_figures(dense, key, spec, data, folder)
    if spec.constraints.max_accuracy_drop is not None and figures.accuracy is None:
        figures = replace(figures, accuracy=dense_accuracy(dense, key, spec, data, folder, progress))
    return Context(spec, folder, data, dense, path, key, figures, progress)


def measure_latency(model: nn.Module, spec: StudySpec, backend: Backend | None = None) -> Latency:
    """A network's latency as the study measures it; `backend` replaces the study's."""
    how = spec.latency
    return latency(
        model,
        resolution=spec.data.resolution,
        batch_size=how.batch_size,
        threads=how.threads,
        backend=backend or how.backend,
        runs=how.runs,
    )

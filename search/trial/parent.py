"""The network that a trial prunes: the dense one, or one from another study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.errors import InputError
from pruner.network.loading import load_dense
from search.storage.folder import StudyFolder
from search.study.spec import StudySpec
from search.study.text import DENSE, study_and_trial


@dataclass(frozen=True, slots=True)
class Parent:
    """A network to prune."""

    model: MobileNetV2
    """On the CPU, in eval mode; never changed."""
    hash: str
    """The hash of its weights."""


def parent_file(name: str, spec: StudySpec, folder: StudyFolder) -> Path:
    """The file of a parent: `STUDY/NUMBER`, a finished trial of a study beside this one, or the path of a .pth,
    relative to the study file's folder.

    Raises InputError if it does not exist.
    """
    if named := study_and_trial(name):
        study, number = named
        trial = StudyFolder(folder.path.parent / study).trial(number)
        path, there = trial.model, trial.is_finished
        what = f"trial {number} of study {study} is not finished, or not here ({trial.path})"
    else:
        path = Path(spec.directory, Path(name).expanduser())
        what, there = f"no such file: {path} (paths are relative to the study file's folder)", path.is_file()
    if not there:
        raise InputError(f"space.parent: {what}; give {DENSE!r}, STUDY/NUMBER of a finished trial, or a .pth")
    return path


def check_parents(spec: StudySpec, folder: StudyFolder, classes: int) -> None:
    """Raise InputError unless all parents that the study may choose from exist and can be pruned."""
    names = {spec.space.parent, *(spec.variant(name).space.parent for name in spec.variants)}
    for name in [name for value in names for name in (value if isinstance(value, tuple) else (value,))]:
        if name != DENSE:
            load_parent(name, spec, folder, classes)


def load_parent(name: str, spec: StudySpec, folder: StudyFolder, classes: int) -> MobileNetV2:
    """Load a parent. Raises InputError if it does not exist, or is not a MobileNetV2 for this many classes."""
    return load_dense(parent_file(name, spec, folder), classes)

"""The parts of a study file one after the other: which have begun, and what each takes over from the one before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pruner.errors import InputError
from pruner.system.files import write_json
from search.pipeline.parts import Part, choose
from search.results.records import records
from search.storage.folder import StudyFolder
from search.storage.studies import dense_of, load_study
from search.study.spec import StudySpec, read_study


def begun(parts: Sequence[Part], runs: Path) -> list[tuple[Part, StudySpec, StudyFolder]]:
    """The parts that have begun, as they were begun."""
    found = []
    for part in parts:
        folder = StudyFolder(runs / part.name)
        if folder.study_file.exists():
            found.append((part, read_study(folder.study_file), folder))
    return found


def latest(parts: Sequence[Part], runs: Path) -> tuple[StudySpec, StudyFolder]:
    """The part that was begun last; the first if none has begun."""
    if len(parts) > 1 and (found := begun(parts, runs)):
        return found[-1][1:]
    return parts[0].study(), StudyFolder(runs / parts[0].name)


def study_of(part: Part, before: tuple[StudySpec, StudyFolder] | None, storage: str | None) -> StudySpec:
    """The study that a part is, now that the part `before` it is finished.

    Raises InputError if that left no network to go on from.
    """
    return part.study(parents(part, *before, storage) if before and part.parents else ())


def note(spec: StudySpec, folder: StudyFolder) -> None:
    """Write down that a part has begun, and as what."""
    write_json(folder.study_file, spec.content())


def parents(part: Part, spec: StudySpec, folder: StudyFolder, storage: str | None) -> list[str]:
    """The networks that a part goes on from: the best of that study."""
    study = load_study(spec, folder, storage).study
    dense = dense_of(study)
    chosen = choose(records(study), part.parents, part.min_distance, dense.widths) if dense else []
    if not chosen:
        raise InputError(f"study {part.name}: {spec.name} has left no network that meets the constraints to go on from")
    return [f"{spec.name}/{record.number}" for record in chosen]

"""Running the parts of a study file in order: which have begun, and what each takes from the previous one."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from optuna.study import Study

from pruner.errors import InputError
from pruner.system.files import read_object, write_json
from search.pipeline.parts import Part, choose, read_parts
from search.results.records import best, records
from search.storage.folder import StudyFolder
from search.storage.studies import dense_of
from search.study.changes import Change
from search.study.spec import StudySpec, read_study


def parts_of(path: Path, runs: Path, changes: Sequence[Change] = ()) -> tuple[list[Part], list[Change]]:
    """The parts of a study file as its study was begun, with all changes to it: those remembered, then `changes`.

    Raises InputError: one line with the file, the key, and what would be right.
    """
    kept = read_object(_changes_file(runs, read_study(path).name))
    every = [*kept.items(), *changes]
    return read_parts(path, every), every


def remember(runs: Path, name: str, changes: Sequence[Change]) -> None:
    """Keep the changes that the study file `name` is begun with; later commands need not give them again."""
    path, kept = _changes_file(runs, name), dict(changes)
    if kept != read_object(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, kept)


def set_options(path: Path, runs: Path) -> str:
    """The options that begin the study of that file with the changes it remembers; empty if there are none."""
    kept = read_object(_changes_file(runs, read_study(path).name))
    return "".join(f" --set {shlex.quote(f'{key}={json.dumps(value)}')}" for key, value in kept.items())


def _changes_file(runs: Path, name: str) -> Path:
    return runs / name / "changes.json"


def begun(parts: Sequence[Part], runs: Path) -> list[tuple[Part, StudySpec, StudyFolder]]:
    """The parts that have begun, each with its study as of then, and its folder."""
    found = []
    for part in parts:
        folder = StudyFolder(runs / part.name)
        if folder.study_file.exists():
            found.append((part, read_study(folder.study_file), folder))
    return found


def settled(parts: Sequence[Part], runs: Path) -> list[tuple[Part, StudySpec, StudyFolder]]:
    """Those of the parts that have begun after which another one has begun, too."""
    return begun(parts, runs)[:-1]


def latest(parts: Sequence[Part], runs: Path) -> tuple[StudySpec, StudyFolder]:
    """The study and folder of the part that was begun last; of the first part if none has begun."""
    if len(parts) > 1 and (found := begun(parts, runs)):
        return found[-1][1:]
    return parts[0].study(), StudyFolder(runs / parts[0].name)


def studies_of(parts: Sequence[Part], runs: Path) -> list[tuple[StudySpec, StudyFolder]]:
    """The study and folder of every part that has begun, in order; of the first part if none has."""
    return [(spec, folder) for _, spec, folder in begun(parts, runs)] or [latest(parts, runs)]


def study_of(part: Part, before: tuple[StudySpec, Study] | None) -> StudySpec:
    """The study of a part, once the part `before` it is finished.

    Raises InputError if that part has no network to start from.
    """
    return part.study(parents(part, *before) if before and part.parents else ())


def ends_before(part: Part, spec: StudySpec, study: Study) -> str:
    """Why a part is not begun after the study before it, as a sentence; empty if it is."""
    top, needed = best(records(study)), part.needs_accuracy
    if needed is None or top is None or (top.accuracy or 0.0) >= needed:
        return ""
    return (
        f"{part.name} is not begun: trial {top.number} of {spec.name} has {top.accuracy:.2%} of the holdout, below its "
        f"needs_accuracy = {needed:g}."
    )


def note(spec: StudySpec, folder: StudyFolder) -> None:
    """Record the study that a part is begun as."""
    write_json(folder.study_file, spec.content())


def parents(part: Part, spec: StudySpec, study: Study) -> list[str]:
    """The networks that a part starts from: the best of the study before it, whose file says `spec`."""
    dense = dense_of(study)
    chosen = choose(records(study), part.parents, part.min_distance, dense.widths) if dense else []
    if not chosen:
        raise InputError(f"study {part.name}: {spec.name} has no network that meets the constraints to start from")
    return [f"{spec.name}/{record.number}" for record in chosen]

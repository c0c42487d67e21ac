"""What follows the last trial: the report, the exported network, its grade on the test images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from optuna.study import Study

from pruner.data import Dataset
from pruner.errors import InputError
from pruner.export import export_module
from pruner.files import read_json, write_json, write_whole
from pruner.loading import load_network
from search.artifacts import Shared
from search.folder import StudyFolder
from search.grade import grade
from search.plots import report
from search.progress import Progress
from search.results import best, finished, importances, records, summary
from search.study_file import StudySpec


def finish(shared: Shared, spec: StudySpec, folder: StudyFolder, data: Dataset, progress: Progress) -> dict[str, Any]:
    """Write the report, export the best network and grade it, once, on the test images.

    Returns the study's summary; if there is a best trial, with `file` (the network) and `test` (its grade).
    """
    study = shared.store.study
    write_report(study, spec, folder)
    result = summary(records(study))
    if result["best"] is None:
        return result
    _, path = export_trial(shared, spec, folder)
    kept = path.with_suffix(".json")
    graded = read_json(kept)
    if graded is None:
        device = data.test.images.device
        graded = asdict(grade(path, data, spec.score, spec.data.resolution, device, progress))
        write_json(kept, graded)
    return {**result, "file": str(path), "test": graded}


def write_report(study: Study, spec: StudySpec, folder: StudyFolder) -> None:
    """Draw the study as it stands."""
    write_whole(folder.report, report(spec, records(study), importances(study)).encode())


def export_trial(
    shared: Shared, spec: StudySpec, folder: StudyFolder, number: int | None = None, out: Path | None = None
) -> tuple[int, Path]:
    """Write a finished trial's network, the best one's if none is named; returns (trial, file).

    Raises InputError if there is no such trial, or its files are out of reach.
    """
    study = shared.store.study
    found = records(study)
    if number is None:
        top = best(found)
        if top is None:
            raise InputError(f"study {spec.name}: no finished trial keeps to the limits; nothing to export")
        number = top.number
    elif number not in {r.number for r in finished(found)}:
        raise InputError(f"study {spec.name}: trial {number} is not finished; see prune-search status")
    path = out or folder.export / f"mobilenet-{number}.pth"
    trial = next(trial for trial in study.get_trials(deepcopy=False) if trial.number == number)
    files = shared.finished_folder(folder, trial)
    if files is None:
        raise InputError(
            f"study {spec.name}: the files of trial {number} are not here (its worker was "
            f"{trial.user_attrs.get('worker', 'unknown')}); give that machine's --runs, or the study's --artifacts"
        )
    export_module(load_network(files.model), path)
    return number, path

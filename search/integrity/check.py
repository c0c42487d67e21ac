"""Find where a study's files and its database disagree; `search.integrity.fix` fixes it."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from pruner.errors import InputError
from pruner.system.files import checksum, is_whole_archive, json_bytes, read_object
from search.filesystem import locked
from search.results.figures import Figures
from search.storage.artifacts import Shared
from search.storage.folder import StudyFolder
from search.storage.leases import LEASES_TABLE, Leases
from search.storage.trial_folder import CHECKED, CHECKSUMS, LOCK, leftovers
from search.terminal.progress import Progress

_NEEDED = ("recipe.json", "plan.json", "model.pth", "measurement.json")
"""The files that every finished trial has."""
_CLOSE = 1e-9
"""The relative tolerance. Figures are written with all digits, so JSON and databases return the same values."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A disagreement, or a damaged or left-over file."""

    trial: int | None
    what: str
    remedy: str
    """What fixing does (see `search.integrity.fix`); empty if it cannot be fixed here."""
    fix: Callable[[], object] | None = field(default=None, compare=False)
    """Fixes it, unless the trial must be run again."""
    retrain: tuple[Path, ...] | None = None
    """The damaged files, if the trial must be run again."""

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready form for scripts."""
        return {"trial": self.trial, "what": self.what, "remedy": self.remedy}


def find_problems(shared: Shared, folder: StudyFolder, progress: Progress) -> list[Problem]:
    """Check everything, change nothing. Workers may run meanwhile. Raises Damaged if the database is damaged."""
    store = shared.store
    store.database.verify()
    trials = store.study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    found: list[Problem] = []
    with progress.task("checking trials", len(done), unit="trials") as bar:
        for trial in done:
            found += _finished_trial(trial, shared, folder)
            bar.advance()
    leases = Leases(store.database.engine, store.study._study_id, "")
    return found + _stale_leases(trials, leases) + _foreign_folders(trials, folder) + _damaged_files(folder)


def _finished_trial(trial: FrozenTrial, shared: Shared, folder: StudyFolder) -> list[Problem]:
    """Problems with a finished trial's files."""
    here = folder.trial(trial.number)
    if not here.path.exists() and shared.artifacts is None and not shared.store.database.on_one_machine:
        where = Figures.load(trial).worker or "an unknown worker"
        return [Problem(trial.number, f"has no files here; they are on the machine of {where}", "")]
    try:
        shared.finished_folder(folder, trial)
    except InputError as error:
        return [Problem(trial.number, str(error), "")]
    wrong = _wrong_files(here.path, trial)
    if not wrong:
        return []
    what = "; ".join(f"{path.name} {reason}" for path, reason in wrong.items())
    if [path.name for path in wrong] == ["checkpoint.pt"]:
        (path,) = wrong
        return [Problem(trial.number, what, "delete it; a finished trial does not need it", path.unlink)]
    remedy = "run it again from its last undamaged checkpoint"
    return [Problem(trial.number, what, remedy, retrain=tuple(wrong))]


def _wrong_files(home: Path, trial: FrozenTrial) -> dict[Path, str]:
    """File -> what is wrong with it. Reads every file once; builds the network only if there are no checksums."""
    sums: dict[str, object] = {}
    wrong: dict[Path, str] = {}
    if (home / CHECKSUMS).exists():  # trials of earlier versions have none
        sums = read_object(home / CHECKSUMS)
        unchanged = sums and (home / CHECKSUMS).read_bytes() == json_bytes(sums)
        if not unchanged or not {*_NEEDED} <= sums.keys() <= {*CHECKED}:
            sums, wrong[home / CHECKSUMS] = {}, "is damaged"
    for name in CHECKED:
        path = home / name
        if path.exists():
            reason = _wrong_content(path, trial, sums)
        else:
            reason = "is missing" if name in _NEEDED or (name in sums and name != "checkpoint.pt") else ""
        if reason:
            wrong[path] = reason
    return wrong


def _wrong_content(path: Path, trial: FrozenTrial, sums: Mapping[str, object]) -> str:
    if path.name in _FIGURES and (reason := _FIGURES[path.name](read_object(path), trial)):
        return reason
    if path.name in sums:
        try:
            with path.open("rb", buffering=0) as file:
                return "" if sums[path.name] == checksum(file) else "is damaged"
        except OSError as error:  # a disk error
            return f"cannot be read ({error.strerror})"
    if path.name == "model.pth":
        return _model(path, trial)
    return "is damaged" if path.name == "checkpoint.pt" and not is_whole_archive(path) else ""


def _recipe(found: dict[str, Any], _trial: FrozenTrial) -> str:
    return "" if found else "is damaged"


def _plan(found: dict[str, Any], trial: FrozenTrial) -> str:
    return _compare("MFLOPs", found.get("mflops"), Figures.load(trial).mflops)


def _measurement(found: dict[str, Any], trial: FrozenTrial) -> str:
    measured = found.get("measurement")
    accuracy = measured.get("accuracy") if isinstance(measured, dict) else None
    return _compare("accuracy", accuracy, Figures.load(trial).accuracy)


_FIGURES = {"recipe.json": _recipe, "plan.json": _plan, "measurement.json": _measurement}


def _model(path: Path, trial: FrozenTrial) -> str:
    """Check the network of a trial without checksums by building it."""
    from pruner.measurement.measure import count
    from pruner.network.loading import load_network

    if zipfile.is_zipfile(path) and not is_whole_archive(path):
        return "is damaged"
    try:
        _, params = count(load_network(path))
    except InputError:
        return "is damaged"
    return _compare("parameters", params, Figures.load(trial).params)


def _compare(what: str, file: object, database: float | None) -> str:
    if not isinstance(file, int | float):
        return "is damaged"
    if database is None or abs(file - database) <= _CLOSE * max(1.0, abs(database)):
        return ""
    return f"says {what} {file:g}, the database {database:g}"


def _stale_leases(trials: Sequence[FrozenTrial], leases: Leases) -> list[Problem]:
    if not sqlalchemy.inspect(leases.engine).has_table(LEASES_TABLE):  # no worker has begun yet
        return []
    under_way = leases.all()
    what, remedy = "is finished, but still leased to a worker", "drop the lease"
    return [
        Problem(trial.number, what, remedy, partial(leases.drop, trial._trial_id))
        for trial in trials
        if trial.state.is_finished() and trial._trial_id in under_way
    ]


def _foreign_folders(trials: Sequence[FrozenTrial], folder: StudyFolder) -> list[Problem]:
    known = {trial.number for trial in trials}
    found = []
    for path in folder.trial_folders():
        if path.name.isdigit() and int(path.name) not in known and any(p.name != "lock" for p in path.iterdir()):
            home = folder.trial(int(path.name))
            remedy = f"move its files to {home.orphans}"
            found.append(Problem(None, f"{path} belongs to no trial", remedy, home.put_aside))
    return found


def _damaged_files(folder: StudyFolder) -> list[Problem]:
    archives = (*sorted(folder.scores_folder.glob("*.pt")), *sorted(folder.dense.glob("*.checkpoint")))
    damaged = [path for path in archives if not is_whole_archive(path)]
    tables = sorted(folder.dense.glob("*.json"))
    damaged += [path for path in tables if not read_object(path)]
    dense = [path for path in sorted(folder.dense.glob("*.pth")) if not is_whole_archive(path)]
    return [
        Problem(None, f"{path} is damaged", "delete it; it is computed again", path.unlink) for path in damaged
    ] + [
        Problem(None, f"{path} is damaged; delete it, and the next run trains it again", "") for path in dense
    ] + [
        Problem(None, f"{path} was left by a process that was killed", "delete it", path.unlink)
        for path in _leftovers(folder)
    ]  # fmt: skip


def _leftovers(folder: StudyFolder) -> list[Path]:
    """Temporary files that killed processes left in folders where nobody is writing."""
    found = []
    for home in (folder.path, folder.scores_folder, folder.export, *folder.trial_folders()):
        if home.parent == folder.trials:
            with locked(home / LOCK, wait=False) as free:
                if not free:
                    continue
        found += leftovers(home)
    return found

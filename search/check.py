"""Do a study's files and its database agree? Finds what does not, and mends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from pruner.checkpoint import load_state
from pruner.errors import InputError
from pruner.files import read_json
from pruner.loading import load_network
from pruner.measure import count
from search.artifacts import Shared
from search.claims import Claims
from search.filesystem import locked
from search.folder import StudyFolder, TrialFolder
from search.progress import Progress

_CLOSE = 1e-9
"""Figures are written with all their digits; JSON and databases give the same back."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not agree."""

    trial: int | None
    what: str
    remedy: str
    """What mending does; empty: nothing can be done here."""
    mend: Callable[[], str] | None = field(default=None, compare=False)
    """Mends it; returns what is left to say."""
    retrain: tuple[Path, ...] | None = None
    """The damaged files, if the trial must be made again to mend it."""

    def as_json(self) -> dict[str, Any]:
        """For scripts."""
        return {"trial": self.trial, "what": self.what, "remedy": self.remedy}


def find_problems(shared: Shared, folder: StudyFolder, progress: Progress) -> list[Problem]:
    """Read everything, change nothing. Workers may be at work meanwhile."""
    store = shared.store
    found = _broken_database(store.database.engine)
    if found:
        return found
    trials = store.study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    with progress.task("checking trials", len(done), unit="trials") as bar:
        for trial in done:
            found += _finished_trial(trial, shared, folder)
            bar.advance()
    claims = Claims(store.database.engine, store.study._study_id, "")
    under_way = claims.all() if sqlalchemy.inspect(store.database.engine).has_table("prune_search_claims") else {}
    for trial in trials:
        if trial.state.is_finished() and trial._trial_id in under_way:
            drop = _then("", lambda trial_id=trial._trial_id: claims.drop(trial_id))  # type: ignore[misc]
            found.append(Problem(trial.number, "is finished, but still claimed by a worker", "drop the claim", drop))
    known = {trial.number for trial in trials}
    for path in folder.trial_folders():
        if path.name.isdigit() and int(path.name) not in known and any(p.name != "lock" for p in path.iterdir()):
            home = folder.trial(int(path.name))
            aside = _then(f"moved to {home.orphans}", home.put_aside)
            found.append(Problem(None, f"{path} belongs to no trial", f"move its files to {home.orphans}", aside))
    for path in sorted(folder.scores_folder.glob("*.pt")):
        if _damaged_state(path):
            found.append(Problem(None, f"{path} is damaged", "delete it; it is computed again", _then("", path.unlink)))
    return found + [
        Problem(None, f"{path} was left by a process that was killed", "delete it", _then("", path.unlink))
        for path in _leftovers(folder)
    ]


def _broken_database(engine: sqlalchemy.Engine) -> list[Problem]:
    if engine.dialect.name != "sqlite":
        return []
    with engine.connect() as connection:
        said = connection.exec_driver_sql("PRAGMA integrity_check").scalar_one()
    return [] if said == "ok" else [Problem(None, f"{engine.url.database} is damaged: {said}", "")]


def _finished_trial(trial: FrozenTrial, shared: Shared, folder: StudyFolder) -> list[Problem]:
    """What is wrong with a finished trial's files."""
    here = folder.trial(trial.number)
    if not here.path.exists() and shared.artifacts is None and not shared.store.database.on_one_machine:
        where = trial.user_attrs.get("worker", "an unknown worker")
        return [Problem(trial.number, f"has no files here; they are where {where} was", "")]
    try:
        shared.finished_folder(folder, trial)
    except InputError as error:
        return [Problem(trial.number, str(error), "")]
    wrong: dict[Path, str] = {}
    for name, look in (
        ("recipe.json", _json_reader),
        ("plan.json", _plan_reader(trial)),
        ("measurement.json", _measurement_reader(trial)),
        ("model.pth", _model_reader(trial)),
    ):
        path = here.path / name
        reason = look(path) if path.exists() else "is missing"
        if reason:
            wrong[path] = reason
    checkpoint = here.path / "checkpoint.pt"
    if wrong and checkpoint.exists() and _damaged_state(checkpoint):
        wrong[checkpoint] = "is damaged"
    if not wrong:
        return []
    what = "; ".join(f"{path.name} {reason}" for path, reason in wrong.items())
    remedy = "make it again, going on from its last whole checkpoint"
    return [Problem(trial.number, what, remedy, retrain=tuple(wrong))]


def _json_reader(path: Path) -> str:
    try:
        return "" if isinstance(read_json(path), dict) else "is damaged"
    except ValueError:
        return "is damaged"


def _plan_reader(trial: FrozenTrial) -> Callable[[Path], str]:
    def look(path: Path) -> str:
        if said := _json_reader(path):
            return said
        return _compare("MFLOPs", (read_json(path) or {}).get("mflops"), trial.user_attrs.get("mflops"))

    return look


def _measurement_reader(trial: FrozenTrial) -> Callable[[Path], str]:
    def look(path: Path) -> str:
        if said := _json_reader(path):
            return said
        measured = (read_json(path) or {}).get("measurement", {})
        return _compare("accuracy", measured.get("accuracy"), trial.user_attrs.get("accuracy"))

    return look


def _model_reader(trial: FrozenTrial) -> Callable[[Path], str]:
    def look(path: Path) -> str:
        try:
            mflops, _ = count(load_network(path))
        except InputError:
            return "is damaged"
        return _compare("MFLOPs", mflops, trial.user_attrs.get("mflops"))

    return look


def _compare(what: str, file: float | None, database: float | None) -> str:
    if file is None:
        return "is damaged"
    if database is None or abs(file - database) <= _CLOSE * max(1.0, abs(database)):
        return ""
    return f"says {what} {file:g}, the database {database:g}"


def _damaged_state(path: Path) -> bool:
    try:
        load_state(path)
    except InputError:
        return True
    return False


def _leftovers(folder: StudyFolder) -> list[Path]:
    """Neighbours that `pruner.files` writes before it renames them, where nobody is writing."""
    found = []
    for home in (folder.path, folder.scores_folder, folder.export, *folder.trial_folders()):
        if home.parent == folder.trials:
            with locked(TrialFolder(home, home).lock, wait=False) as free:
                if not free:
                    continue
        found += [path for path in home.glob(".*.*") if path.is_file() and path.name != ".shared.json"]
    return found


def _then(said: str, action: Callable[[], object]) -> Callable[[], str]:
    def mend() -> str:
        action()
        return said

    return mend

"""Rebuild a study's database from its trials' folders when the old one is damaged or lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy.engine import URL

from pruner.errors import InputError
from pruner.recipe import Recipe
from pruner.system.files import read_json
from search.database.address import study_url
from search.database.connection import Database
from search.database.sqlite_file import BESIDE
from search.filesystem import locked
from search.results.records import record
from search.sampling.recipe import recipe, sampled
from search.sampling.samplers import draw
from search.storage.folder import StudyFolder
from search.storage.leases import Leases
from search.storage.studies import OPENING, begin_study, restore_dense
from search.storage.trial_file import read_trial
from search.storage.trial_folder import TrialFolder
from search.study.spec import StudySpec


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The result of rebuilding a study's database."""

    trials: int
    """The number of trials."""
    to_run: tuple[int, ...]
    """The trials that `run` will continue or run again: they were running, or no file records how they ended."""
    aside: Path | None
    """Where the damaged file is kept, if there was one."""

    def __str__(self) -> str:
        parts = [f"A new database was built from the files of {self.trials} trials."]
        if self.aside:
            parts.append(f"The damaged one is kept as {self.aside}.")
        if self.to_run:
            parts.append(f"`prune-search run` takes up trials {', '.join(map(str, self.to_run))}.")
        return " ".join(parts)


def rebuild(spec: StudySpec, folder: StudyFolder, url: str | None = None) -> Rebuilt:
    """Build the study's database from the trials' files in `folder`; a damaged database is moved aside, never deleted.

    Finished trials are restored as they were told to Optuna. A running trial keeps its number and sampled parameters,
    and continues from its checkpoint. A trial whose files are not here is sampled and run again. Notes written in the
    dashboard and queued trials are lost.

    If it is killed half-way, it can be run again. Raises InputError if a worker is working on the study, or if the
    trials belong to another study file.
    """
    for number, home in folder.begun_trials().items():
        with locked(home.lock, wait=False) as free:
            if not free:
                raise InputError(f"study {spec.name}: a worker is running trial {number}; stop it first")
    found = _trials(spec, folder)
    unknown = create_trial(state=TrialState.WAITING)
    trials = [found.get(number, unknown) for number in range(max(found, default=-1) + 1)]
    place = study_url(url, folder.database)
    if place.get_backend_name() == "sqlite":
        with locked(folder.lock):
            aside = _replace(Path(place.database or ""), spec, folder, trials)
    else:
        aside = None
        _build_on_server(Database(place, folder.lock), spec, folder, trials)
    to_run = tuple(number for number, trial in enumerate(trials) if not trial.state.is_finished())
    return Rebuilt(len(trials), to_run, aside)


def _trials(spec: StudySpec, folder: StudyFolder) -> dict[int, FrozenTrial]:
    """Number -> trial, for every folder that holds a trial of this study."""
    begun = folder.begun_trials()
    found = {number: trial for number, home in begun.items() if (trial := _trial(spec, number, home))}
    if begun and not found:
        raise InputError(
            f"study {spec.name}: the trials in {folder.trials} were begun with another study file; give that one, or "
            "move the folder away"
        )
    return found


def _trial(spec: StudySpec, number: int, home: TrialFolder) -> FrozenTrial | None:
    """Restore the trial in a folder from its files; None if it belongs to another study."""
    asked = _recipe(home)
    if (kept := read_trial(home)) and (asked is None or _gives(kept[0].params, asked, spec)):
        return kept[0]
    params = sampled(asked, spec) if asked else None
    if params is None:
        return None
    drawn = draw(spec, number, [], params)
    return create_trial(
        state=TrialState.RUNNING, params=params, distributions=drawn.distributions, system_attrs=drawn.system_attrs
    )


def _recipe(home: TrialFolder) -> Recipe | None:
    """Read the recipe in a trial's folder; None if it is damaged."""
    try:
        return Recipe.from_json(_json(home)["recipe"])
    except (ValueError, KeyError):
        return None


def _json(home: TrialFolder) -> dict[str, Any]:
    """Read the recipe's file; empty if it is damaged."""
    try:
        found = read_json(home.path / "recipe.json")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _gives(params: dict[str, Any], asked: Recipe, spec: StudySpec) -> bool:
    try:
        return recipe(params, spec) == asked
    except (ValueError, KeyError, TypeError):
        return False


def _replace(path: Path, spec: StudySpec, folder: StudyFolder, trials: Sequence[FrozenTrial]) -> Path | None:
    """Build the file beside the old one, then swap them; returns where the old one is kept."""
    new = path.with_name(f".{path.name}.new")
    for ending in ("", *BESIDE):
        new.with_name(new.name + ending).unlink(missing_ok=True)
    database = Database(URL.create("sqlite", database=str(new)), new.with_suffix(".lock"))
    _fill(database, spec.name, spec, folder, trials)
    database.engine.dispose()
    new.with_suffix(".lock").unlink()
    aside = path.with_name(f"{path.name}.damaged-{datetime.now():%Y%m%d-%H%M%S-%f}")
    for ending in reversed(("", *BESIDE)):  # a journal left here would be replayed into the new file
        if (old := path.with_name(path.name + ending)).exists():
            old.rename(aside.with_name(aside.name + ending))
    new.rename(path)
    return aside if aside.exists() else None


def _build_on_server(database: Database, spec: StudySpec, folder: StudyFolder, trials: Sequence[FrozenTrial]) -> None:
    """Build the study under a temporary name, then rename it, so that nobody opens an incomplete study."""
    name = f"{spec.name} (being rebuilt)"
    storage = database.storage
    with database.alone(OPENING):
        for left in storage.get_all_studies():
            if left.study_name == name:  # left by an attempt that was killed
                storage.delete_study(left._study_id)
        _fill(database, name, spec, folder, trials)
        rename = sqlalchemy.text("UPDATE studies SET study_name = :new WHERE study_name = :old")
        with database.engine.begin() as connection:
            connection.execute(rename, {"new": spec.name, "old": name})


def _fill(database: Database, name: str, spec: StudySpec, folder: StudyFolder, trials: Sequence[FrozenTrial]) -> None:
    study, _ = begin_study(database, name, spec)
    restore_dense(study, *_dense(folder))
    for trial in trials:
        database.storage.create_new_trial(study._study_id, template_trial=trial)
    leases = Leases(database.engine, study._study_id, "")
    leases.create()
    kept = [kept for home in folder.begun_trials().values() if (kept := read_trial(home))]
    leases.worked(max((worked for _, worked in kept if worked is not None), default=0.0))
    for r in map(record, trials):
        if r.state == "done" and r.feasible and r.score is not None:
            leases.reached(r.score)


def _dense(folder: StudyFolder) -> tuple[str | None, dict[str, Any] | None]:
    """(the key of the dense network, its figures); (None, None) if they are not known."""
    if kept := read_json(folder.dense_figures):
        return kept["key"], kept["figures"]
    return None, None

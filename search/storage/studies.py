"""The study in its database: create it, continue it if its file still has the same settings, read it."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.study import Study
from pydantic import ValidationError

from pruner.errors import InputError
from search.database.address import printable, study_url
from search.database.connection import Database
from search.database.sqlite_file import damage
from search.exit_status import ExitStatus, Failed, read_only
from search.results.records import Dense
from search.sampling.early_stopping import make_rule
from search.storage.folder import StudyFolder
from search.study.score import DIRECTIONS
from search.study.spec import BUDGET_KEYS, StudySpec, differences

_SPEC = "study_file"
_DENSE = "dense_network"
_DENSE_FIGURES = "dense_figures"
_DATA = "data_fingerprint"
OPENING = "studies"
"""What to be alone with while a study is created."""


@dataclass(frozen=True, slots=True)
class Store:
    """A study and the database it is in."""

    study: Study
    database: Database

    def alone(self) -> AbstractContextManager[None]:
        """`Database.alone` with this study."""
        return self.database.alone(f"study {self.study._study_id}")


class Damaged(Failed):
    """The study's database is damaged or has lost the study; the trials' files exist (`search.integrity.rebuild`)."""

    def __init__(self, folder: StudyFolder, what: str) -> None:
        finished = sum(home.is_finished for home in folder.begun_trials().values())
        kept = f"{finished} finished trials' files are in {folder.trials}" if finished else "no trial was finished"
        # For a file with several parts, STUDY would mean the part that was begun last.
        study = folder.study_file if folder.study_file.exists() else "STUDY"
        super().__init__(
            f"{what}; {kept}; build a new database from the trials' files: prune-search check {study} --fix",
            ExitStatus.DAMAGED,
        )


def open_study(spec: StudySpec, folder: StudyFolder, url: str | None = None) -> Store:
    """Create the study of that file, or continue it. `url`: its database (default: SQLite in the folder).

    Raises InputError, with the differences, if it was begun with another space or other settings, or if the database
    cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database = _open_database(spec, folder, url)
    if database.read_only:
        raise read_only(Path(database.url.database or ""))
    with database.alone(OPENING):
        study, before = begin_study(database, spec.name, spec)
    if before is not None and (changed := differences(_completed(before, spec), _settings(spec))):
        raise InputError(
            f"study {spec.name}: begun with other settings: {'; '.join(changed)}; change them back, give the study "
            f"another name, or delete {folder.path if url is None else 'it from its database'}"
        )
    return Store(study, database)


def begin_study(database: Database, name: str, spec: StudySpec) -> tuple[Study, dict[str, Any] | None]:
    """(the study of that name, created if necessary; the settings that an existing one has). Call it under a lock."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=database.storage,
        study_name=name,
        directions=[DIRECTIONS[objective] for objective in spec.objectives],
        sampler=RandomSampler(),  # never used: search.sampling.samplers draws
        pruner=make_rule(spec),
        load_if_exists=True,
    )
    before = study.user_attrs.get(_SPEC)
    if before is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(spec.objectives))
        study.set_user_attr(_SPEC, _settings(spec))
    return study, before


def bind_dense(store: Store, key: str, figures: Dense) -> None:
    """Tie the study to one dense network. Raises InputError if it was begun with another."""
    study = store.study
    with store.alone():
        before = _bound(study, _DENSE, key)
        known = dense_of(study)
        if before == key and (known is None or known.accuracy is None):
            study.set_user_attr(_DENSE_FIGURES, asdict(figures))
    if before != key:
        raise InputError(
            f"study {study.study_name}: begun with another dense network; give that one with --dense, or give the "
            "study another name"
        )


def bind_data(store: Store, name: str, fingerprint: str) -> None:
    """Tie the study to the images of the folder `name`. Raises InputError if it was begun with others."""
    study = store.study
    with store.alone():
        before = _bound(study, _DATA, fingerprint)
    if before != fingerprint:
        raise InputError(
            f"study {study.study_name}: begun with other images than the folder {name} has now; put them back as "
            "they were, or give the study another name"
        )


def _bound(study: Study, name: str, value: str) -> str:
    """What the study is tied to under that name: to `value`, if it was not tied to anything yet."""
    before: str | None = study.user_attrs.get(name)
    if before is None:
        study.set_user_attr(name, value)
    return value if before is None else before


def restore_dense(study: Study, key: str | None, figures: dict[str, Any] | None) -> None:
    """Tie a rebuilt study to the dense network it was begun with, as far as that is known."""
    for name, value in ((_DENSE, key), (_DENSE_FIGURES, figures)):
        if value is not None:
            study.set_user_attr(name, value)


def dense_of(study: Study) -> Dense | None:
    """The network that the study prunes; None before its first worker has measured it."""
    figures = study.user_attrs.get(_DENSE_FIGURES)
    return Dense(**figures) if figures else None


def load_study(spec: StudySpec, folder: StudyFolder, url: str | None = None) -> Store:
    """Open the study of that file to read. Raises InputError if it has not begun, Damaged if its database is lost."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None and not folder.database.exists():
        if folder.begun_trials():
            raise Damaged(folder, f"study {spec.name}: {folder.database} is gone")
        raise InputError(
            f"study {spec.name}: not begun, there is no {folder.database}; start it: prune-search run (or say where "
            "it is: --runs, --storage)"
        )
    database = _open_database(spec, folder, url)
    try:
        return Store(optuna.load_study(storage=database.storage, study_name=spec.name), database)
    except KeyError:
        if folder.begun_trials():
            raise Damaged(folder, f"study {spec.name}: {printable(database.url)} no longer holds it") from None
        raise InputError(f"study {spec.name}: {printable(database.url)} holds no study of that name") from None


def _open_database(spec: StudySpec, folder: StudyFolder, given: str | None) -> Database:
    url = study_url(given, folder.database)

    def damaged(why: str) -> Damaged:
        return Damaged(folder, f"study {spec.name}: its database {url.database} is damaged ({why})")

    if url.get_backend_name() == "sqlite" and (
        why := damage(Path(url.database or ""), in_use=bool(folder.begun_trials()))
    ):
        raise damaged(why)
    return Database(url, folder.lock, damaged=damaged)


def _completed(settings: dict[str, Any], spec: StudySpec) -> dict[str, Any]:
    """The settings that an earlier version wrote, with keys that it did not know at their defaults."""
    budget = {key: getattr(spec, key) for key in BUDGET_KEYS}
    try:
        return _settings(StudySpec.model_validate({**settings, **budget}))
    except ValidationError:  # it had keys that are gone: the differences will name them
        return settings


def _settings(spec: StudySpec) -> dict[str, Any]:
    """The settings that identify a study. The paths of its data and network on this machine do not."""
    settings = spec.model_dump(mode="json", exclude=set(BUDGET_KEYS))
    del settings["data"]["root"], settings["dense"]["checkpoint"]
    return settings

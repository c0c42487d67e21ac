"""The study in its database: creating it, continuing it if its file still asks for the same, reading it."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import optuna
from optuna.samplers import RandomSampler
from optuna.study import Study
from pydantic import ValidationError

from pruner.errors import InputError
from search.database import Database, study_url
from search.folder import StudyFolder
from search.results import Dense
from search.score import DIRECTIONS
from search.stopping import make_rule
from search.study_file import BUDGET_KEYS, StudySpec, differences

_SPEC = "study_file"
_DENSE = "dense_network"
_DENSE_FIGURES = "dense_figures"
_OPENING = 0
"""Stands for a study's number while it has none: numbers begin at 1."""


@dataclass(frozen=True, slots=True)
class Store:
    """A study and the database it is in."""

    study: Study
    database: Database


def open_study(spec: StudySpec, folder: StudyFolder, url: str | None = None) -> Store:
    """The study of that file, created or continued. `url`: its database (default: SQLite in the folder).

    Raises InputError, with the differences, if it was begun with another space or other settings, and if the database
    cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    database = Database(study_url(url, folder.database), folder.lock)
    with database.alone(_OPENING):
        study = optuna.create_study(
            storage=database.storage,
            study_name=spec.name,
            directions=[DIRECTIONS[name] for name in spec.objectives],
            sampler=RandomSampler(),  # never asked: search.sampling draws
            pruner=make_rule(spec),
            load_if_exists=True,
        )
        settings = _settings(spec)
        before = study.user_attrs.get(_SPEC)
        if before is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(list(spec.objectives))
            study.set_user_attr(_SPEC, settings)
    if before is not None and (changed := differences(_completed(before, spec), settings)):
        raise InputError(
            f"study {spec.name}: begun with other settings: {'; '.join(changed)}; change them back, give the study "
            f"another name, or delete {folder.path if url is None else 'it from its database'}"
        )
    return Store(study, database)


def claim_dense(store: Store, key: str, figures: Dense) -> None:
    """Tie the study to one dense network. Raises InputError if it was begun with another."""
    study = store.study
    with store.database.alone(study._study_id):
        before = study.user_attrs.get(_DENSE)
        if before is None:
            study.set_user_attr(_DENSE, key)
        if before in (None, key) and dense_of(study) is None:
            study.set_user_attr(_DENSE_FIGURES, asdict(figures))
    if before not in (None, key):
        raise InputError(
            f"study {study.study_name}: begun with another dense network; give that one with --base, or give the "
            "study another name"
        )


def dense_of(study: Study) -> Dense | None:
    """The network that the study prunes; None before its first worker has looked at it."""
    figures = study.user_attrs.get(_DENSE_FIGURES)
    return Dense(**figures) if figures else None


def load_study(spec: StudySpec, folder: StudyFolder, url: str | None = None) -> Store:
    """The study of that file, to read from. Raises InputError if it has not begun."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if url is None and not folder.database.exists():
        raise InputError(
            f"study {spec.name}: not begun, there is no {folder.database}; start it: prune-search run (or say where "
            "it is: --runs, --storage)"
        )
    database = Database(study_url(url, folder.database), folder.lock)
    try:
        return Store(optuna.load_study(storage=database.storage, study_name=spec.name), database)
    except KeyError:
        where = database.url.render_as_string(hide_password=True)
        raise InputError(f"study {spec.name}: {where} holds no study of that name") from None


def _completed(settings: dict[str, Any], spec: StudySpec) -> dict[str, Any]:
    """Settings that an earlier version wrote, with the keys it did not know at their defaults."""
    budget = {key: getattr(spec, key) for key in BUDGET_KEYS}
    try:
        return _settings(StudySpec.model_validate({**settings, **budget}))
    except ValidationError:  # it had keys that are gone: the differences will name them
        return settings


def _settings(spec: StudySpec) -> dict[str, Any]:
    """What makes the study this one. Where data and network lie on this machine does not."""
    settings = spec.model_dump(mode="json", exclude=set(BUDGET_KEYS))
    del settings["data"]["root"], settings["base"]["file"]
    return settings

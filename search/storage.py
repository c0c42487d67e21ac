"""The study in its database: opening, SQLite's locking, and resuming a study whose file has changed."""

from __future__ import annotations

import warnings
from typing import Any

import optuna
import sqlalchemy
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study

from pruner.errors import InputError
from search.folder import StudyFolder, locked
from search.sampling import make_sampler
from search.score import DIRECTIONS
from search.stopping import make_rule
from search.study_file import BUDGET_KEYS, StudySpec, differences

_SPEC = "study_file"
_DENSE = "dense_network"


def open_study(spec: StudySpec, folder: StudyFolder) -> Study:
    """The study of that file, created or continued.

    Raises InputError, with the differences, if it was begun with another space or other settings.
    """
    with locked(folder.lock):  # of two processes that make one database at once, one would fail
        study = optuna.create_study(
            storage=_storage(folder),
            study_name=spec.name,
            directions=[DIRECTIONS[name] for name in spec.objectives],
            sampler=make_sampler(spec),
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
    elif changed := differences(before, settings):
        raise InputError(
            f"study {spec.name}: begun with other settings: {'; '.join(changed)}; change them back, give the study "
            f"another name, or delete {folder.path}"
        )
    return study


def claim_dense(study: Study, key: str) -> None:
    """Tie the study to one dense network. Raises InputError if it was begun with another."""
    before = study.user_attrs.get(_DENSE)
    if before is None:
        study.set_user_attr(_DENSE, key)
    elif before != key:
        raise InputError(
            f"study {study.study_name}: begun with another dense network; give that one with --base, or give the "
            "study another name"
        )


def load_study(spec: StudySpec, folder: StudyFolder) -> Study:
    """The study of that file, to read from. Raises InputError if it has not begun."""
    if not folder.database.exists():
        raise InputError(f"study {spec.name}: not begun, there is no {folder.database}; start it: prune-search run")
    try:
        with locked(folder.lock):
            return optuna.load_study(storage=_storage(folder), study_name=spec.name)
    except KeyError:
        raise InputError(f"study {spec.name}: {folder.database} holds no study of that name") from None


def _settings(spec: StudySpec) -> dict[str, Any]:
    """What makes the study this one. Where data and network lie on this machine does not."""
    settings = spec.model_dump(mode="json", exclude=set(BUDGET_KEYS))
    del settings["data"]["root"], settings["base"]["file"]
    return settings


def _storage(folder: StudyFolder) -> BaseStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = RDBStorage(f"sqlite:///{folder.database}", engine_kwargs={"connect_args": {"timeout": 60}})
    _begin_immediately(storage.engine)
    return storage


def _begin_immediately(engine: sqlalchemy.Engine) -> None:
    """Have SQLite take its write lock when a transaction begins.

    Otherwise two workers that both read, then write, can hand out one waiting trial twice.
    """

    @sqlalchemy.event.listens_for(engine, "connect")
    def _no_implicit_begin(connection: Any, _record: Any) -> None:
        connection.isolation_level = None

    @sqlalchemy.event.listens_for(engine, "begin")
    def _begin(connection: sqlalchemy.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

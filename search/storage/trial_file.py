"""`trial.json`: the database's record of a trial, in its folder, so that a lost database can be rebuilt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import distribution_to_json, json_to_distribution
from optuna.trial import FrozenTrial, TrialState

from pruner.system.files import read_json, write_json
from search.storage.folder import StudyFolder
from search.storage.trial_folder import TrialFolder

_WORKED = "worked_seconds"


def write_trial(home: TrialFolder, trial: FrozenTrial, worked: float | None = None) -> None:
    """Write a trial as it is now. `worked`: how many seconds the study has been worked on by now, if known."""
    write_json(home.trial_file, {**_as_json(trial), _WORKED: worked})


def read_trial(home: TrialFolder) -> tuple[FrozenTrial, float | None] | None:
    """(the trial, seconds that the study had been worked on) as stored; None if the file is missing or damaged.

    The trial's number and id are -1: the database assigns them.
    """
    try:
        kept = read_json(home.trial_file)
        return None if kept is None else (_from_json(kept), kept[_WORKED])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def catch_up(folder: StudyFolder, trials: Sequence[FrozenTrial]) -> None:
    """Write the files of finished trials that do not say so yet: a process was killed between database and file, or
    was of an earlier version."""
    for trial in trials:
        home = folder.trial(trial.number)
        if trial.state.is_finished() and home.has_begun:
            kept = read_trial(home)
            if kept is None or kept[0].state != trial.state:
                write_trial(home, trial)


def _as_json(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "state": trial.state.name,
        "values": trial.values,
        "start": _iso(trial.datetime_start),
        "complete": _iso(trial.datetime_complete),
        "params": trial.params,
        "distributions": {name: json.loads(distribution_to_json(d)) for name, d in trial.distributions.items()},
        "user_attrs": trial.user_attrs,
        "system_attrs": trial.system_attrs,
        "intermediate_values": trial.intermediate_values,
    }


def _from_json(kept: dict[str, Any]) -> FrozenTrial:
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState[kept["state"]],
        value=None,
        values=kept["values"],
        datetime_start=_time(kept["start"]),
        datetime_complete=_time(kept["complete"]),
        params=kept["params"],
        distributions={name: json_to_distribution(json.dumps(d)) for name, d in kept["distributions"].items()},
        user_attrs=kept["user_attrs"],
        system_attrs=kept["system_attrs"],
        intermediate_values={int(step): value for step, value in kept["intermediate_values"].items()},
    )


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time else None


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None

"""A study's finished trials in MLflow: a run each, with its parameters, figures, curves, card and network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pruner.errors import InputError
from pruner.system.extras import need
from search.database.address import without_secrets
from search.results.metrics import metrics_of
from search.results.records import Record, finished, record
from search.storage.artifacts import Shared
from search.storage.folder import StudyFolder
from search.storage.trial_folder import TrialFolder
from search.study.spec import StudySpec
from search.terminal.progress import Progress

_TRIAL = "prune_search.trial"
_HASH = "prune_search.hash"
_FIGURES = ("mflops", "params", "mflops_removed", "params_removed", "latency_ms", "accuracy_before", "accuracy",
            "predicted", "score", "size_bytes", "nonzero_bytes", "wall_seconds", "cpu_seconds")  # fmt: skip


def track(
    shared: Shared, spec: StudySpec, folder: StudyFolder, uri: str, experiment: str | None, progress: Progress
) -> dict[str, int]:
    """Log every finished trial that the MLflow experiment does not have yet.

    A run that a killed call left unfinished is deleted and logged anew, so each trial is there once and whole.

    Args:
        shared: The study and its files.
        spec: The study.
        folder: Its folder.
        uri: MLflow's tracking URI: a server's address, or a database or folder.
        experiment: The experiment's name; None: the study's.
        progress: Shows a bar.

    Returns:
        `logged` and `known`: how many trials were logged now, and how many before.

    Raises:
        InputError: MLflow is not installed, or the tracking URI cannot be used.
    """
    mlflow = need("mlflow", "logging to MLflow", "mlflow")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # MLflow's own waits for minutes
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # which is for our answer
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        place = _experiment(client, experiment or spec.name)
        trials = {trial.number: trial for trial in shared.store.study.get_trials(deepcopy=False)}
        found = finished([record(trial) for trial in trials.values()])
        known = _known(client, place)
        left = [r for r in found if known.get(str(r.number)) != (r.hash or "")]
        with progress.task("logging to MLflow", len(left), unit="trials") as bar:
            for r in left:
                _log(client, place, r, shared.finished_folder(folder, trials[r.number]), folder.export)
                bar.advance()
    except (mlflow.exceptions.MlflowException, OSError) as error:
        said = without_secrets(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise InputError(f"--tracking-uri {without_secrets(uri)}: MLflow cannot use it ({said})") from None
    return {"logged": len(left), "known": len(found) - len(left)}


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        raise InputError(f"--experiment {name}: it is deleted in MLflow; restore it there, or give another name")
    place: str = client.create_experiment(name) if found is None else found.experiment_id
    return place


def _known(client: Any, place: str) -> dict[str, str]:
    """Trial number -> hash of its network, for the trials that are logged whole."""
    known, token = {}, None
    while True:
        page = client.search_runs([place], filter_string=f"tags.`{_TRIAL}` != ''", page_token=token)
        for one in page:
            if one.info.status == "FINISHED":
                known[one.data.tags[_TRIAL]] = one.data.tags.get(_HASH, "")
            else:
                client.delete_run(one.info.run_id)
        token = page.token
        if not token:
            return known


def _log(client: Any, place: str, r: Record, files: TrialFolder | None, export: Path) -> None:
    tags = {_TRIAL: str(r.number), _HASH: r.hash or "", "mlflow.note.content": r.reason}
    run = client.create_run(place, run_name=f"trial {r.number}", tags={k: v for k, v in tags.items() if v}).info.run_id
    for name, value in r.sampled.items():
        client.log_param(run, name, value)
    for name in _FIGURES:
        if (value := getattr(r, name)) is not None:
            client.log_metric(run, name, float(value))
    result = files.result() if files else None
    for row in metrics_of(result["history"], result["before"]) if result else ():
        _epoch(client, run, row)
    for path in _artifacts(files.path, export, r.number) if files else ():
        client.log_artifact(run, str(path))
    client.set_terminated(run, "FINISHED")


def _epoch(client: Any, run: str, row: Mapping[str, float]) -> None:
    for name, value in row.items():
        if name != "epoch":
            client.log_metric(run, f"epoch_{name}", float(value), step=int(row["epoch"]))


def _artifacts(trial: Path, export: Path, number: int) -> list[Path]:
    """The network, how it was made, its epochs and, where the trial was exported, its card."""
    names = ("model.pth", "recipe.json", "plan.json", "metrics.csv")
    found = [trial / name for name in names] + [export / f"mobilenet-{number}{end}" for end in (".json", ".md")]
    return [path for path in found if path.is_file()]

"""Trials in MLflow, on a real server."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import mlflow
import pytest

from processes import Command, Invoke
from records import status
from servers import free_port
from studies import Finished


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server of our own."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    address = f"http://127.0.0.1:{port}"
    store, files = f"sqlite:///{folder}/mlflow.db", folder / "files"
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", store, "--artifacts-destination", str(files),
    ]  # fmt: skip
    with (
        (folder / "log.txt").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=folder) as running,
    ):
        try:
            for _ in range(240):
                try:
                    urllib.request.urlopen(f"{address}/health", timeout=1)
                    break
                except OSError:
                    assert running.poll() is None, (folder / "log.txt").read_text()
                    time.sleep(0.5)
            yield address
        finally:
            running.terminate()


@pytest.mark.slow
def test_each_finished_trial_is_logged_once_and_whole(invoke: Invoke, finished: Finished, server: str) -> None:
    study, runs, result = finished
    records = status(invoke, study, runs)["records"]
    told = json.loads(invoke("mlflow", study, "--runs", runs, "--tracking-uri", server, "--json"))
    assert told[study.stem] == {"logged": len(records), "known": 0}
    client = mlflow.MlflowClient(tracking_uri=server)
    place = client.get_experiment_by_name(study.stem).experiment_id
    cut_short = client.create_run(place, tags={"prune_search.trial": "0"}).info.run_id  # as a killed call leaves it
    told = json.loads(invoke("mlflow", study, "--runs", runs, "--tracking-uri", server, "--json"))
    assert told[study.stem] == {"logged": 0, "known": len(records)}
    assert client.get_run(cut_short).info.lifecycle_stage == "deleted"
    logged = {int(run.data.tags["prune_search.trial"]): run for run in client.search_runs([place])}
    assert logged.keys() == {r["number"] for r in records}
    for r in records:
        run = logged[r["number"]]
        assert run.data.metrics["score"] == pytest.approx(r["score"])
        assert run.data.params == {name: str(value) for name, value in r["sampled"].items()}
        curve = client.get_metric_history(run.info.run_id, "epoch_holdout_accuracy")
        assert [point.step for point in curve] == [0, 1, 2]
        files = {file.path for file in client.list_artifacts(run.info.run_id)}
        assert {"model.pth", "recipe.json", "metrics.csv"} <= files
        assert (f"mobilenet-{r['number']}.md" in files) == (r["number"] == result["best"]["number"])


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_told_in_a_line(command: Command, finished: Finished) -> None:
    study, runs, _ = finished
    told = command("mlflow", study, "--runs", runs, "--tracking-uri", f"http://127.0.0.1:{free_port()}")
    assert told.returncode == 2 and told.stderr.strip().count("\n") == 0, told.stderr
    assert "MLflow cannot use it" in told.stderr

"""Workers that take trials at once, in threads with a connection each, on real databases."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.storage.folder import StudyFolder
from search.storage.studies import open_study
from search.study.spec import read_study
from search.workers.heartbeat import Heartbeat
from search.workers.scheduler import Nothing, Scheduler
from studies import write_study

pytestmark = pytest.mark.slow

TRIALS, QUEUED, WORKERS = 30, 6, 5
CHANGES = f"""
trials = {TRIALS}
[space]
importance = "l2"
learning_rate = 0.004
[space.pruning_ratio]
stage3 = {{ low = 0.0, high = 0.9 }}
stage4 = {{ low = 0.0, high = 0.9 }}
[sampler]
name = "tpe"
n_startup_trials = 4
max_concurrent = 3
"""


def run_to_the_end(study: Path, folder: StudyFolder, url: str | None, seed: int | None) -> list[int]:
    """The numbers of the trials that one worker finishes; with a seed, it dies now and then, and begins anew."""
    chance, finished = random.Random(seed), []
    spec = read_study(study)
    store = open_study(spec, folder, url)
    scheduler = Scheduler(store, spec, folder, grace_period=60)
    while True:
        with ExitStack() as held:
            taken = scheduler.take(Heartbeat(scheduler.leases, spec, 60), held)
            if not isinstance(taken, Nothing):
                if seed is not None and chance.random() < 0.3:
                    scheduler = Scheduler(store, spec, folder, grace_period=60)  # what it held is free again
                    continue
                store.study.tell(taken.trial, sum(taken.trial.params.values()))
                scheduler.leases.drop(taken.trial._trial_id)
                finished.append(taken.trial.number)
            elif not taken.wait:
                store.database.engine.dispose()
                return finished
        if isinstance(taken, Nothing):
            time.sleep(0.01)


@pytest.mark.parametrize("server", ["sqlite", "postgres"])
def test_each_trial_goes_to_one_worker_and_is_drawn_as_by_one_alone(
    server: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    study = write_study(tmp_path / "tiny.toml", CHANGES)

    def sampled(name: str, seeds: list[int | None]) -> list[dict[str, Any]]:
        folder = StudyFolder(tmp_path / name / "tiny")
        folder.create()
        url = request.getfixturevalue("postgres").url(f"scheduler_{name}") if server == "postgres" else None
        opened = open_study(read_study(study), folder, url).study
        for place in range(QUEUED):
            opened.enqueue_trial({"pruning_ratio.stage3": place / 10})
        with ThreadPoolExecutor(len(seeds)) as at_once:
            finished = list(at_once.map(lambda seed: run_to_the_end(study, folder, url, seed), seeds))
        assert sorted(number for one in finished for number in one) == list(range(TRIALS))
        trials = opened.get_trials()
        assert [trial.state for trial in trials] == [optuna.trial.TrialState.COMPLETE] * TRIALS
        return [trial.params for trial in trials]

    assert sampled("many", list(range(WORKERS))) == sampled("one", [None])

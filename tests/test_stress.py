"""Many short trials, real processes, SIGKILL to a random one after every few trials: every trial once, none lost.

`STRESS_TRIALS=200 pytest tests/test_stress.py` is the same for longer.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from conftest import Command, Invoke, running, workers
from servers import Postgres

pytestmark = pytest.mark.slow
WriteStudy = Callable[..., Path]

TRIALS = int(os.environ.get("STRESS_TRIALS", "24"))
QUEUED, KILLS = TRIALS // 3, TRIALS // 8
CUTS = [number / 50 for number in range(40)]
NO_TRAINING = ('[train]\noptimizer = "adamw"\nepochs = 2', '[train]\noptimizer = "adamw"\nepochs = 0')
SHORT = (
    ("trials = 4", "trials = 1"),
    ("resolution = 32", "resolution = 32\nholdout = 32"),
    ("watch_images = 32", "watch_images = 0"),
    NO_TRAINING,
    ("[space]", '[sampler]\nname = "random"\n[space]'),  # no trial waits for another's result
    # Few enough values that some trials cut and measure, and the others take over what an equal one has made.
    ('["l1", "l2", "bn_scale"]\nlearning_rate = { low = 0.002, high = 0.01, log = true }', '"l2"'),
    ("stage3 = { low = 0.1, high = 0.8 }\nstage6 = { low = 0.1, high = 0.8 }\nhead = [0.25, 0.5]", f"stage3 = {CUTS}"),
)


@pytest.mark.timeout(30 * TRIALS + 600)
@pytest.mark.parametrize("server", ["sqlite", "postgres"])
def test_many_trials_survive_four_workers_that_are_killed(
    server: str,
    request: pytest.FixtureRequest,
    command: Command,
    invoke: Invoke,
    write_study: WriteStudy,
    tmp_path: Path,
) -> None:
    runs = tmp_path / "r"
    postgres: Postgres | None = request.getfixturevalue("postgres") if server == "postgres" else None
    url = postgres.url("stress") if postgres else f"sqlite:///{runs}/tiny/study.db"
    where = ("--runs", runs, *(("--storage", url) if postgres else ()))
    invoke("run", write_study(*SHORT), *where)  # dense network and first trial, undisturbed
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    opened = optuna.load_study(study_name="tiny", storage=url.replace("postgresql:", "postgresql+psycopg:"))
    for place in range(QUEUED):
        opened.enqueue_trial({"cut.stage3": CUTS[place % 40]})
    study = write_study(("trials = 4", f"trials = {TRIALS}"), *SHORT[1:], extra="")
    chance, kills, spared, restarted = random.Random(0), 0, 0, False
    told, shown = tmp_path / "stderr", tmp_path / "stdout"  # a pipe that nobody reads fills up, and the pool waits
    with (
        told.open("w") as errors,
        shown.open("w") as output,
        running("run", study, *where, "--workers", 4, "--threads", 1, "--json", stdout=output, stderr=errors) as pool,
    ):
        while pool.poll() is None:
            time.sleep(0.1)
            measured = len(list(runs.glob("tiny/trials/*/measurement.json")))
            if measured >= spared and (victims := workers(pool.pid)):
                os.kill(chance.choice(victims), signal.SIGKILL)
                kills += 1
                spared = measured + chance.randint(2, 5)
            if postgres and kills == 2 and not restarted:
                postgres.stop()
                time.sleep(2)
                postgres.start()
                restarted = True
    stdout, stderr = shown.read_text(), told.read_text()
    assert pool.returncode == 0, stderr
    assert json.loads(stdout)["trials"]["done"] == TRIALS
    state = json.loads(invoke("status", study, *where, "--json"))
    records = state["records"]
    assert [(record["number"], record["state"]) for record in records] == [(n, "done") for n in range(TRIALS)]
    for number in range(TRIALS):
        assert stderr.count(f"trial {number:3}  done") <= 1, f"trial {number} was finished twice"
    queued = [record["sampled"]["cut.stage3"] for record in records[1 : QUEUED + 1]]
    assert queued == [CUTS[place % 40] for place in range(QUEUED)]
    if postgres:
        assert "The database does not answer" in stderr
        assert "The database is back" in stderr
    assert kills >= KILLS
    deaths = [line for line in stderr.splitlines() if "died (" in line]
    assert len(deaths) >= KILLS
    assert all("killed by SIGKILL" in line for line in deaths), deaths
    if not postgres:
        assert json.loads(invoke("check", study, *where, "--json"))["problems"] == []

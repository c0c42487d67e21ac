"""Workers that share a study, die, are stopped, are taken for dead, and lose nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

import studies
from processes import Command, Invoke, running, wait_for, workers
from pruner.network.loading import load_network
from records import figures, status
from search.filesystem import network_filesystem
from servers import Postgres
from studies import WriteStudy

slow = pytest.mark.slow
TRIALS = 7
"""Of the study that is ended in other ways."""


@pytest.fixture(scope="module")
def dense_file(invoke: Invoke, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dense network, so that studies here begin at once and prune the same."""
    folder = tmp_path_factory.mktemp("dense")
    study = studies.write_study(folder / "tiny.toml")
    invoke("train-dense", study, "--runs", folder / "r", "--out", folder / "dense.pth")
    return folder / "dense.pth"


@pytest.fixture(scope="module")
def undisturbed(invoke: Invoke, dense_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(study file, runs folder) of a study of TRIALS trials that one worker ran through."""
    folder = tmp_path_factory.mktemp("undisturbed")
    study = studies.write_study(folder / "tiny.toml", f"trials = {TRIALS}\nsampler.n_startup_trials = 4")
    invoke("run", study, "--runs", folder / "r", "--dense", dense_file, "--workers", 1, "--threads", 1)
    return study, folder / "r"


def is_stopped(process: int) -> bool:
    state = Path(f"/proc/{process}/status")
    return state.exists() and "T (stopped)" in state.read_text()


def equal_weights(one: Path, other: Path) -> bool:
    mine, theirs = (load_network(path).state_dict() for path in (one, other))
    return all(mine[key].equal(theirs[key]) for key in mine)


@slow
def test_a_pool_that_is_killed_and_begun_again_ends_as_one_worker_left_alone(
    invoke: Invoke, undisturbed: tuple[Path, Path], dense_file: Path, tmp_path: Path
) -> None:
    study, alone = undisturbed
    runs = tmp_path / "r"
    options = ("--runs", runs, "--dense", dense_file, "--workers", 3, "--threads", 1)
    with running("run", study, *options) as pool:  # one worker dies in mid-epoch, then the pool with all its workers
        wait_for(lambda: list(runs.glob("tiny/trials/*/checkpoint.pt")) or pool.poll() is not None)
        os.kill(workers(pool.pid)[0], signal.SIGKILL)
        wait_for(lambda: len(list(runs.glob("tiny/trials/*/measurement.json"))) >= 3)
        orphans = workers(pool.pid)
        pool.kill()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))
    assert status(invoke, study, runs)["trials"]["done"] < TRIALS, "the pool was killed too late to show anything"
    invoke("run", study, *options)
    assert figures(status(invoke, study, runs)) == figures(status(invoke, study, alone))
    for number in range(TRIALS):
        model = Path("tiny") / "trials" / f"{number:04}" / "model.pth"
        assert equal_weights(runs / model, alone / model)
        log = (runs / model).with_name("log.txt").read_text()
        assert all(log.count(f"epoch {epoch},") <= 1 for epoch in (1, 2)), "an epoch on disk was trained again"
    assert not (runs / "tiny" / "orphans").exists(), "a trial's own files were taken for another's"


@slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("count", [1, 2])  # one alone is in no pool, which would kill it if it went on
def test_workers_stop_in_mid_epoch_and_leave_nobody(
    count: int, how: signal.Signals, write_study: WriteStudy, dense_file: Path, tmp_path: Path
) -> None:
    study = write_study("train.images_per_epoch = 12800")
    start = ("worker", study) if count == 1 else ("run", study, "--workers", count)
    with running(*start, "--runs", tmp_path, "--dense", dense_file) as pool:
        wait_for(lambda: len(list(tmp_path.glob("tiny/trials/*/plan.json"))) == count, pool)
        at_work = workers(pool.pid)
        pool.send_signal(how)
        _, stderr = pool.communicate()
    assert not list(tmp_path.glob("tiny/trials/*/checkpoint.pt")), "it went on to the end of the epoch"
    assert pool.returncode == 130
    assert "Traceback" not in stderr
    assert "give the same command again" in stderr.splitlines()[-1]
    assert not any(Path(f"/proc/{pid}").exists() for pid in at_work)
    assert not [path for path in tmp_path.rglob(".*.*") if path.is_file()], "something half-written is left"


@slow
def test_a_second_ctrl_c_leaves_at_once(write_study: WriteStudy, dense_file: Path, tmp_path: Path) -> None:
    study = write_study("train.images_per_epoch = 1280")
    with running("run", study, "--runs", tmp_path, "--dense", dense_file, "--workers", 2) as pool:
        wait_for(lambda: len(list(tmp_path.glob("tiny/trials/*/plan.json"))) == 2)
        at_work = workers(pool.pid)
        for worker in at_work:
            os.kill(worker, signal.SIGSTOP)  # it will not stop when asked
        pool.send_signal(signal.SIGINT)
        time.sleep(0.3)
        pool.send_signal(signal.SIGINT)
        pool.wait()
        assert len(list(filter(is_stopped, at_work))) == 2, "it waited for them"  # it kills those that it waits for
        for worker in at_work:
            os.kill(worker, signal.SIGKILL)
    assert pool.returncode == 130


@slow
def test_a_worker_that_always_dies_is_given_up_with_the_reason(
    write_study: WriteStudy, dense_file: Path, tmp_path: Path
) -> None:
    study = write_study("train.epochs = 200")
    with running("run", study, "--runs", tmp_path, "--dense", dense_file, "--workers", 2) as pool:
        while pool.poll() is None:
            for worker in workers(pool.pid):
                os.kill(worker, signal.SIGKILL)
            time.sleep(0.3)
        _, stderr = pool.communicate()
    assert pool.returncode == 2
    assert stderr.count("restarting") == 8  # four times each of two
    assert "SIGKILL" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


@slow
def test_a_score_that_is_reached_ends_the_study_and_nothing_is_finished_after_it(
    command: Command, invoke: Invoke, write_study: WriteStudy, dense_file: Path, tmp_path: Path
) -> None:
    # Every trial scores above -1000, so the first to finish is the last.
    study = write_study("target_score = -1000")
    where = ("--runs", tmp_path, "--dense", dense_file)
    done = command("run", study, *where, "--workers", 2)
    assert done.returncode == 0, done.stderr
    state = status(invoke, study, tmp_path)
    assert state["trials"]["done"] == 1
    assert "target_score = -1000" in done.stderr
    again = command("run", study, *where, "--workers", 2)
    assert status(invoke, study, tmp_path) == state, again.stderr
    invoke("run", write_study(), *where)  # the limit is lifted: it goes on
    assert status(invoke, study, tmp_path)["trials"]["done"] == 4


@slow
def test_hours_are_counted_over_restarts_and_what_is_under_way_waits_for_more(
    command: Command, invoke: Invoke, write_study: WriteStudy, dense_file: Path, tmp_path: Path
) -> None:
    long = "trials = 1\ntrain.epochs = 60\ntrain.images_per_epoch = 32\n"
    study = write_study(f"{long}timeout_hours = 0.001")  # 3.6 s
    where = ("--runs", tmp_path, "--dense", dense_file, "--workers", 1, "--grace-period", 3)
    done = command("run", study, *where)
    assert done.returncode == 0, done.stderr
    assert "timeout_hours = 0.001" in done.stderr
    state = status(invoke, study, tmp_path)
    assert (state["trials"]["done"], state["trials"]["running"]) == (0, 1)
    before = (tmp_path / "tiny/trials/0000/checkpoint.pt").stat().st_mtime_ns
    assert "timeout_hours = 0.001" in command("run", study, *where).stderr
    assert (tmp_path / "tiny/trials/0000/checkpoint.pt").stat().st_mtime_ns == before
    invoke("run", write_study(long), *where)
    history = json.loads((tmp_path / "tiny/trials/0000/measurement.json").read_text())["history"]
    assert [row["epoch"] for row in history] == list(range(1, 61))


@slow
def test_a_worker_that_slept_and_was_taken_for_dead_drops_its_trial_without_harm(
    postgres: Postgres, invoke: Invoke, write_study: WriteStudy, dense_file: Path, tmp_path: Path
) -> None:
    study = write_study("trials = 1\ntrain.epochs = 12")
    url = postgres.url("slept")
    shared = ("--storage", url, "--artifacts", tmp_path / "store", "--dense", dense_file, "--grace-period", 2)
    # Two folders stand for two machines: neither sees the other's file locks.
    here, there = tmp_path / "local", tmp_path / "there"
    with running("worker", study, *shared, "--runs", here, "--threads", 1) as sleeper:
        logs = here / "tiny" / "trials"
        wait_for(lambda: any("epoch" in log.read_text() for log in logs.glob("*/log.txt")))
        sleeper.send_signal(signal.SIGSTOP)
        invoke("run", study, *shared, "--runs", there, "--workers", 1)
        sleeper.send_signal(signal.SIGCONT)
        stdout, stderr = sleeper.communicate()
    assert sleeper.returncode == 0, stderr
    assert "declared dead" in stderr
    assert "all trials are done" in stdout
    (record,) = json.loads(invoke("status", study, "--runs", here, "--storage", url, "--json"))["records"]
    assert record["state"] == "done"
    log = (there / "tiny/trials/0000/log.txt").read_text()
    assert "epoch 1," not in log, "it began anew instead of going on from the shared checkpoint"
    assert "epoch 12," in log
    files = ("--runs", here, "--storage", url, "--artifacts", tmp_path / "store", "--format", "pth", "--no-grade")
    (exported,) = json.loads(invoke("export", study, *files, "--json"))["files"]
    assert equal_weights(Path(exported["file"]), there / "tiny/trials/0000/model.pth")


def test_sqlite_is_refused_on_a_network_file_system(tmp_path: Path) -> None:
    table = (
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"31 22 0:50 / {tmp_path}/n\\040fs rw - nfs4 server:/x rw\n"
        f"32 31 8:2 / {tmp_path}/n\\040fs/local rw - xfs /dev/sdb1 rw\n"
        f"33 22 0:51 / {tmp_path}/ssh rw - fuse.sshfs host:/ rw\n"
    )
    assert network_filesystem(tmp_path / "n fs" / "runs", table) == "nfs4"
    assert network_filesystem(tmp_path / "n fs" / "local" / "runs", table) is None
    assert network_filesystem(tmp_path / "ssh", table) == "fuse.sshfs"
    assert network_filesystem(tmp_path, table) is None
    assert network_filesystem(tmp_path) is None

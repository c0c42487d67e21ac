"""Workers on Ray, and files by way of an S3-compatible store: real servers, all on this machine."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from processes import Command, Invoke, running, wait_for
from pruner.network.loading import load_network
from records import figures, status
from servers import Postgres
from studies import WriteStudy

pytestmark = pytest.mark.slow


def ray_workers() -> list[int]:
    """Processes of Ray's that run a worker's task; Ray writes the task's name into their command line."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cmdline").read_bytes().startswith(b"ray::_work"):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def test_a_study_on_ray_finishes_though_a_worker_is_killed(
    postgres: Postgres, command: Command, invoke: Invoke, write_study: WriteStudy, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'prune-search[ray]'")
    trials = 5
    study = write_study(f"trials = {trials}\ntrain.images_per_epoch = 192")
    where = ("--runs", tmp_path / "r", "--storage", postgres.url("ray"))
    with running(
        "run", study, *where, "--artifacts", tmp_path / "store", "--launcher", "ray", "--workers", 2, "--json",
        RAY_ADDRESS="", RAY_USAGE_STATS_ENABLED="0",
    ) as process:  # fmt: skip
        wait_for(lambda: list(tmp_path.glob("r/tiny/trials/000[1-5]/checkpoint.pt")) and ray_workers(), process)
        os.kill(ray_workers()[0], signal.SIGKILL)
        stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert "restarting" in stderr
    assert stderr.count("Started a local Ray instance") == 1, stderr
    assert json.loads(stdout)["trials"]["done"] == trials
    state = json.loads(invoke("status", study, *where, "--json"))
    assert [record["state"] for record in state["records"]] == ["done"] * trials
    assert len({record["number"] for record in state["records"]}) == trials
    refused = command("run", study, "--runs", tmp_path / "other", "--launcher", "ray", "--address", "somewhere:6379")
    assert (refused.returncode, "cannot share an SQLite file" in refused.stderr) == (2, True)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of an S3-compatible server on loopback, which the usual AWS variables lead to."""
    pytest.importorskip("boto3", reason="needs boto3: pip install 'prune-search[s3]'")
    server = pytest.importorskip("moto.server", reason="needs moto, an S3 server: pip install 'prune-search[test]'")
    import boto3

    running_server = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    running_server.start()
    address, port = running_server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{address}:{port}", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="studies")
    yield "s3://studies/mine"
    running_server.stop()


def test_machines_that_share_a_database_and_a_bucket_share_a_study(
    postgres: Postgres, bucket: str, command: Command, invoke: Invoke, write_study: WriteStudy, tmp_path: Path
) -> None:
    import boto3

    study = write_study('trials = 3\nspace.importance = "l2"')
    shared = ("--storage", postgres.url("bucket"), "--artifacts", bucket, "--threads", 1)
    one, other = tmp_path / "one", tmp_path / "other"  # two folders stand for two machines
    with running("worker", study, *shared, "--runs", one, "--grace-period", 2) as worker:
        wait_for(lambda: list(one.glob("tiny/trials/0001/checkpoint.pt")), worker)
        worker.kill()
    printed = json.loads(invoke("run", study, *shared, "--runs", other, "--workers", 1, "--grace-period", 2, "--json"))
    assert printed["trials"]["done"] == 3
    assert Path(printed["file"]).is_relative_to(other)
    assert not list((other / "dense").glob("*.checkpoint")), "it trained the dense network again"
    for number in range(3):  # also those whose files were made on the first machine only
        one_file = ("--trial", number, "--out", tmp_path, "--format", "pth", "--no-grade")
        invoke("export", study, *shared[:4], "--runs", other, *one_file)
        load_network(tmp_path / f"mobilenet-{number}.pth")
    alone = tmp_path / "alone"
    (dense,) = (other / "dense").glob("*.pth")
    invoke("run", study, "--runs", alone, "--dense", dense, "--workers", 1, "--threads", 1)
    mine = json.loads(invoke("status", study, "--runs", other, *shared[:2], "--json"))
    assert figures(mine) == figures(status(invoke, study, alone))
    names = [item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket="studies")["Contents"]]
    assert all(name.startswith("mine/tiny-") for name in names)
    assert sum(name.endswith("checkpoint.pt") for name in names) == 3  # older ones are removed
    problems = json.loads(invoke("check", study, *shared[:4], "--runs", tmp_path / "third", "--json"))
    assert problems["problems"] == []
    lost = command("export", study, *shared[:2], "--runs", tmp_path / "fourth", "--trial", 0)
    assert (lost.returncode, "--artifacts" in lost.stderr) == (2, True)

"""A disk that is full, really: what is being written waits for space, Ctrl-C ends the waiting, giving up says so."""

from __future__ import annotations

import errno
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torchvision.models.mobilenetv2 import MobileNetV2

from processes import Command, Invoke, running, wait_for
from pruner.data.datasets import Dataset
from pruner.system.files import add_line, write_whole
from records import status
from search.exit_status import ExitStatus, Failed
from search.patience import full_disk, patiently, waiting_for_space
from search.storage.folder import StudyFolder
from search.study.spec import StudySpec
from search.terminal.events import Event
from search.terminal.progress import Terminal
from search.trial.teacher import open_teacher
from search.workers import pool
from search.workers.pool import Handle, run_pool
from search.workers.process import Exit
from servers import Disk
from studies import WriteStudy


@pytest.fixture
def small(disk: Disk | None) -> Disk:
    if disk is None:
        pytest.skip("needs the right to mount a file system")
    return disk


def test_a_file_is_whole_or_absent_on_a_full_disk_and_is_written_when_there_is_space(small: Disk) -> None:
    file, log = small.folder / "file", small.folder / "log"
    add_line(log, "before")
    small.fill()
    with pytest.raises(OSError, match=str(file)):
        write_whole(file, bytes(100_000))
    with pytest.raises(OSError, match=str(log)):
        add_line(log, "x" * 100_000)
    assert [path.name for path in small.folder.iterdir()] == ["log"]
    assert log.read_text() == "before\n"
    said: list[str] = []
    threading.Timer(1.0, small.empty).start()
    with waiting_for_space(said.append):
        write_whole(file, b"content" * 20_000)
        add_line(log, "after")
    assert said == [f"{file}: No space left on device; trying again for 10 min.", "There is space on the disk again."]
    assert file.read_bytes() == b"content" * 20_000
    assert log.read_text() == "before\nafter\n"


def test_patience_ends(small: Disk) -> None:
    small.fill()
    file, said, tries = small.folder / "file", [], 0

    def write() -> None:
        nonlocal tries
        tries += 1
        write_whole(file, bytes(100_000))

    with pytest.raises(OSError) as caught:
        patiently(write, said.append, full_disk, patience=1.5)
    assert caught.value.errno == errno.ENOSPC
    assert tries > 1
    assert said == [f"{file}: No space left on device; trying again for 0 min."]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])  # one alone is in no pool
def test_ctrl_c_ends_the_wait_for_space_and_the_same_command_goes_on(
    count: int, small: Disk, command: Command, invoke: Invoke, write_study: WriteStudy, tmp_path: Path
) -> None:
    study, runs = write_study(), small.folder / "r"
    where = ("run", study, "--runs", runs, "--workers", count, "--threads", 1)
    log = tmp_path / "log"
    with log.open("w") as stderr, running(*where, stderr=stderr) as process:
        wait_for(lambda: list(runs.glob("tiny/trials/*/plan.json")), process)
        small.fill()
        wait_for(lambda: "trying again" in log.read_text(), process)
        process.send_signal(signal.SIGINT)
        process.wait()
    assert process.returncode == 130, log.read_text()
    assert "give the same command again" in log.read_text().splitlines()[-1]
    small.empty()
    assert command(*where).returncode == 0
    assert status(invoke, study, runs)["trials"]["done"] == 4
    assert "in order" in invoke("check", study, "--runs", runs)


class _Ended:
    """A worker that met a full disk at once, each time that it was started."""

    starts = 0

    def start(self, number: int, on_event: Callable[[Event], None]) -> Handle:
        self.starts += 1
        return self

    def exit(self) -> Exit:
        return Exit(wanted=False, final=False, reason="file: No space left on device", status=ExitStatus.TRY_AGAIN)

    def stop(self) -> None: ...

    def kill(self) -> None: ...

    def event(self, number: int, event: Event) -> None: ...

    def state(self, number: int, text: str) -> None: ...


def test_a_pool_that_is_kept_from_working_for_too_long_says_that_it_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "PATIENCE_S", 3.0)
    monkeypatch.setattr(pool, "_HINDERED_PAUSE_S", 0.05)
    worker = _Ended()
    with pytest.raises(Failed, match="No space left on device") as ended:
        run_pool(worker, 2, worker)
    assert ended.value.status == ExitStatus.TRY_AGAIN
    assert worker.starts > 2 * pool._DEATHS, "what keeps it from working was taken for deaths"


def test_a_teachers_logits_wait_for_space_and_are_the_same(small: Disk, dense: MobileNetV2, data: Dataset) -> None:
    few = replace(data, train=data.train.first(64))
    spec = StudySpec.model_validate({"name": "tiny", "trials": 1, "data": {"name": "digits", "resolution": 32}})
    found = []
    for name, full in (("undisturbed", False), ("disturbed", True)):
        folder = StudyFolder(small.folder / name / "tiny")
        folder.create()
        if full:
            small.fill()
            threading.Timer(2.0, small.empty).start()
        with waiting_for_space(print):
            found.append(open_teacher(dense, "key", spec, few, folder, Terminal()).logits)
    assert found[0].equal(found[1])

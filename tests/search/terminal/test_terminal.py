"""In a real terminal, narrow or wide, dumb or resized, with the screen paused, and with no streams at all."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from processes import PROGRAM, Command, Invoke, running, wait_for, workers
from records import status
from search.exit_status import ExitStatus
from search.terminal.events import At
from search.terminal.live import LiveTable
from search.terminal.progress import Terminal
from studies import Finished, WriteStudy
from terminals import PseudoTerminal, full_pipe, seen

slow = pytest.mark.slow
SIZES = [(20, 5), (60, 10), (100, 24), (240, 70), (0, 0)]
SHORT = "trials = 2\ntrain.epochs = 1"
MARKUP = "[red]net[/] [/bold] :smile: \x1b[2J"


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., PseudoTerminal]]:
    """Give this process a terminal of that size for its standard streams; the environment is as a shell's."""
    opened = []

    def give(columns: int, rows: int, **environment: str) -> PseudoTerminal:
        for name, value in ({"TERM": "xterm-256color", "COLUMNS": "", "LINES": ""} | environment).items():
            monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
        opened.append(PseudoTerminal(columns, rows))
        for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
            monkeypatch.setattr(sys, name, os.fdopen(opened[-1].device, mode, closefd=False))
        return opened[-1]

    yield give
    for one in opened:
        one.end()


def until(given: PseudoTerminal, *texts: str) -> None:
    """Until one of these is shown."""
    wait_for(lambda: any(text in given.text for text in (*texts, "No more progress")))
    assert "No more progress" not in given.text, given.text


def shell(text: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which "$@" is `prune-search` with these arguments."""
    return subprocess.run(["bash", "-c", text, "-", PROGRAM, *map(str, arguments)], text=True, **options)


@pytest.fixture(scope="module")
def dense(finished: Finished) -> Path:
    (path,) = (finished[1] / "dense").glob("*.pth")
    return path


@pytest.mark.parametrize(("columns", "rows"), SIZES)
@pytest.mark.parametrize(
    "environment", [{}, {"TERM": "dumb"}, {"NO_COLOR": "1"}, {"COLUMNS": "0", "LINES": "0"}, {"FORCE_COLOR": "1"}]
)
def test_bars_with_and_without_totals_leave_only_the_lines(
    terminal: Callable[..., PseudoTerminal], columns: int, rows: int, environment: dict[str, str]
) -> None:
    given, most = terminal(columns, rows, **environment), 0
    with Terminal() as shown, shown.task("study", 0, unit="trials", done=3) as study:
        for total in (0, 5000):
            with shown.task(MARKUP, total, unit="images") as bar:
                bar.advance(1000)
                bar.say(f"{MARKUP}, epoch 2/3")
                shown.line(f"{MARKUP} {total}")
                study.set(4)
                bar.say(f"drawn{total}")
                if environment.get("TERM") != "dumb":
                    until(given, f"drawn{total}")

    def count(found: list[str]) -> None:
        nonlocal most
        most = max(most, len(found))

    text = given.end()
    assert "smile" in text and "\x1b[2J" not in text
    left = seen(text, columns or 80, on_row=count)
    stay = "".join(f"[red]net[/] [/bold] :smile: [2J {total}" for total in (0, 5000))
    assert "".join(left).replace(" ", "") == stay.replace(" ", "")
    lines = sum(-(-len(row) // (columns or 80)) for row in left)
    assert most <= lines + (rows or 24), "a picture taller than the screen cannot be taken away"


@pytest.mark.parametrize(("columns", "rows"), [(20, 5), (40, 12), (120, 12), (120, 50), (0, 0)])
def test_a_table_of_many_workers_fits_and_says_how_the_study_stands(
    terminal: Callable[..., PseudoTerminal], columns: int, rows: int
) -> None:
    given, pictures = terminal(columns, rows), []
    headline = "Trials: 3 done, 2 running. Best: [red]trial 2, score 30.21."
    with Terminal() as shown, LiveTable(shown, 30, lambda: headline).shown() as table:
        for number in range(30):
            table.event(number, At(f"{MARKUP}, epoch 1/2", 3, 0 if number % 2 else 10))
        until(given, "more workers", "29")
    left = seen(given.end(), columns or 80, on_row=lambda found: pictures.append(list(found)))
    assert "".join(left) == ""
    assert max(map(len, pictures)) <= (rows or 24)
    assert any("Trials: 3 done" in " ".join(picture) for picture in pictures)
    assert all(len(row) < (columns or 80) for picture in pictures for row in picture), "the terminal broke a row"


def test_each_worker_has_the_share_and_the_speed_of_its_task(terminal: Callable[..., PseudoTerminal]) -> None:
    given = terminal(120, 20)
    with Terminal() as shown, LiveTable(shown, 1, lambda: "Trials: none").shown() as table:
        for text in ("first", "second"):  # the second begins anew
            for done in (0, 1000, 2000):
                table.event(0, At(text, done, 4000))
                time.sleep(0.2)
            until(given, text, "50%")
    rows = [row.split() for row in given.end().replace("\r", "\n").split("\n") if "second" in row and "50%" in row]
    speed = float(rows[-1][3].replace(",", ""))
    assert 10 < speed < 2000 / 0.4, rows[-1]


def test_the_study_s_state_follows_a_trial_of_many_epochs(terminal: Callable[..., PseudoTerminal]) -> None:
    given, hours = terminal(120, 20), iter(range(10))
    with (
        Terminal() as shown,
        LiveTable(shown, 1, lambda: f"Trials: 1 running; {next(hours)} h of work").shown() as table,
    ):
        until(given, "; 0 h of work")
        for epoch in (1, 2):
            table.event(0, At("training", 0, 4000))
            table.event(0, At("training", 4000, 4000))
            until(given, f"; {epoch} h of work")
    given.end()


def test_a_terminal_too_small_for_anything_still_gets_the_lines(terminal: Callable[..., PseudoTerminal]) -> None:
    given = terminal(50, 20)
    with Terminal() as shown, LiveTable(shown, 3, lambda: "Trials: none").shown(), shown.task("busy", 5) as bar:
        for size in ((1, 1), (1, 9), (2, 2), (9, 1), (3, 3)):
            given.resize(*size)
            bar.advance()
            shown.line(f"at {size}")
            until(given, f"at {size}")
            time.sleep(0.25)  # one more picture, without a line
    assert "No more progress" not in given.end()


def test_a_picture_is_taken_away_although_the_terminal_was_narrowed(
    terminal: Callable[..., PseudoTerminal],
) -> None:
    given = terminal(120, 20)
    with Terminal() as shown:
        shown.line("before")
        with shown.task("long " * 10, 7):
            until(given, "long")
            wide = given.text
            given.resize(30, 20)
            wait_for(lambda: len(given.text) > len(wide))
    broken = [row[start : start + 30] for row in seen(wide, 120) for start in range(0, max(1, len(row)), 30)]
    assert [row for row in seen(given.end()[len(wide) :], 30, broken) if row] == ["before"]


def test_what_libraries_print_stays_above_the_picture(terminal: Callable[..., PseudoTerminal]) -> None:
    given = terminal(60, 20)
    with Terminal() as shown, shown.task("busy", 0):
        print("a warning", file=sys.stderr)
        print("\r 5%\r 99%", end="", file=sys.stderr, flush=True)
        until(given, "99%")
    print("result")
    assert [row for row in seen(given.end(), 60) if row] == ["a warning", " 99%", "result"]


@slow
@pytest.mark.parametrize(
    ("columns", "rows", "environment", "which"),
    [
        (20, 6, {}, ""),
        (200, 60, {"NO_COLOR": "1"}, "check score"),
        (80, 24, {"TERM": "dumb"}, "check score"),
        (0, 0, {"COLUMNS": "0", "LINES": "0"}, "check score"),
    ],
)
def test_every_command_ends_well_in_a_terminal(
    terminal: Callable[..., PseudoTerminal],
    command: Command,
    finished: Finished,
    dense: Path,
    write_study: WriteStudy,
    tmp_path: Path,
    columns: int,
    rows: int,
    environment: dict[str, str],
    which: str,
) -> None:
    """`which` commands; all of them if empty."""
    study, runs, _ = finished
    notebook = tmp_path / "mine.ipynb"
    notebook.write_text('{"cells": [], "nbformat": 4, "metadata": {}}')
    image = tmp_path / "image.png"
    Image.new("RGB", (40, 30), "red").save(image)
    of_data = ("--data", "digits", "--resolution", 32)
    where = ("--runs", runs)
    chromium = subprocess.run(["bash", "-c", "command -v chromium || command -v google-chrome"], capture_output=True)
    commands: list[tuple[Any, ...]] = [
        ("status", study, *where),
        ("check", study, *where),
        ("run", study, *where, "--workers", 1),
        ("worker", study, *where),
        ("train-dense", write_study(), "--runs", tmp_path / "base"),
        ("evaluate", dense, *of_data),
        ("compare", dense, dense, *of_data, "--out", tmp_path / "compare.html"),
        ("benchmark", dense, "--resolution", 32, "--runs", 3, "--threads", 1, "--backend", "torch"),
        ("predict", dense, image, "--resolution", 32, "--data", "digits"),
        ("sensitivity", dense, *of_data, "--images", 20, "--what", "channels", "--start", 0.5, "--end", 0.5,
         "--out", tmp_path / "scan.json"),
        ("export", study, *where, "--format", "pth", "--out", tmp_path),
        ("submit", study, *where, "--id", "me", "--notebook", notebook, "--out", tmp_path),
        ("plot", study, *where, "--out", tmp_path / "r.html",
         *(("--images", "svg") if chromium.stdout else ())),
    ]  # fmt: skip
    for arguments in (one for one in commands if not which or one[0] in which):
        given = terminal(columns, rows, **environment)
        done = command(*arguments)
        text = given.end()
        assert done.returncode == 0, (arguments[0], text, done.stderr)
        assert "Traceback" not in text and "No more progress" not in text, text
        left = " ".join(seen(text, columns or 80))
        assert not re.search("[━╸╺]", left), (arguments[0], left)


@slow
@pytest.mark.parametrize(
    ("start", "changes", "without", "size"),
    [
        (("run", "--workers", 1), "trials = 1", (), (40, 10)),
        (("run", "--workers", 2), SHORT, (), (100, 6)),
        (("worker",), "timeout_hours = 0.001", ("trials",), (80, 24)),
        (("serve", "--workers", 2, "--port", 0), SHORT, (), (20, 5)),
    ],
)
def test_a_study_runs_to_its_end_in_a_terminal_that_is_resized_meanwhile(
    invoke: Invoke,
    write_study: WriteStudy,
    dense: Path,
    tmp_path: Path,
    start: tuple[Any, ...],
    changes: str,
    without: tuple[str, ...],
    size: tuple[int, int],
) -> None:
    study = write_study(changes, without=without)
    given = PseudoTerminal(*size)
    options = ("--runs", tmp_path, "--dense", dense, "--threads", 1)
    with running(start[0], study, *start[1:], *options, terminal=given.device, TERM="xterm-256color") as process:
        wait_for(lambda: list(tmp_path.glob("tiny/trials/*/plan.json")) or process.poll() is not None)
        while process.poll() is None:
            for columns in (30, 200, 1, 90):
                given.resize(columns, 10)
                time.sleep(0.1)
    text = given.end()
    assert process.returncode == 0, text
    assert "Traceback" not in text and "No more progress" not in text, text
    assert status(invoke, study, tmp_path)["trials"]["failed"] == 0


CHAIN = """
trials = 4
[[searches]]
name = "first"
[[searches]]
name = "last"
train_only = true
space = { learning_rate = 0.01 }
train = { epochs = 100_000 }
"""


@slow
def test_the_table_says_how_much_is_to_come_over_all_searches_of_the_file(
    write_study: WriteStudy, dense: Path, tmp_path: Path
) -> None:
    given, study = PseudoTerminal(200, 24), write_study(CHAIN)
    options = ("--workers", 2, "--runs", tmp_path, "--dense", dense)
    with running("run", study, *options, terminal=given.device, TERM="xterm-256color") as process:
        given.wait_for("core-hours.", process)
        assert "To come: about" in given.text and "tiny.last.\r" in given.text
        assert "Part 2 of 2" not in given.text, "while the first search runs"
        given.press("C")
        process.wait()
    assert process.returncode == ExitStatus.INTERRUPTED, given.end()


@slow
def test_the_dashboard_says_where_it_is_and_ctrl_c_ends_it(finished: Finished) -> None:
    given = PseudoTerminal(20, 5)
    with running("dashboard", finished[0], "--runs", finished[1], "--port", 0, terminal=given.device) as process:
        given.wait_for("Ctrl-C ends it.", process)
        given.press("C")
        assert process.wait() == 0
    assert "Traceback" not in given.end()


def test_lines_wait_for_a_reader_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = full_pipe()
    monkeypatch.setattr(sys, "stderr", os.fdopen(writing, "w"))
    shown, read = Terminal(), b""
    for number in range(40_000):
        shown.line(f"line {number}.")  # nothing waits here
    with os.fdopen(reading, "rb") as pipe, shown:
        while b"line 39999." not in read:
            read += pipe.read1(65536)
    lines = read.decode().splitlines()
    kept = [int(line.removeprefix("line ").rstrip(".")) for line in lines if line.startswith("line")]
    assert kept == sorted(kept) and kept[-10_000:] == list(range(30_000, 40_000))
    assert len(kept) <= 20_000, "half of them are on their way already"
    left_out = [line for line in lines if "left out" in line]
    assert sum(int(re.sub(r"\D", "", line)) for line in left_out) + len(kept) == 40_000


@slow
@pytest.mark.parametrize(("paused", "count"), [("pipe", 1), ("pipe", 2), ("terminal", 2)])
def test_a_study_ends_although_nobody_reads_its_screen(
    invoke: Invoke, write_study: WriteStudy, dense: Path, tmp_path: Path, paused: str, count: int
) -> None:
    study = write_study("train.images_per_epoch = 320")
    arguments = ("run", study, "--runs", tmp_path, "--dense", dense, "--workers", count, "--threads", 1)
    given = PseudoTerminal()
    reading, writing = full_pipe()
    given.press("S")
    with (
        running(*arguments, terminal=given.device, TERM="xterm-256color")
        if paused == "terminal"
        else subprocess.Popen([PROGRAM, *map(str, arguments)], stdout=writing, stderr=writing)
    ) as process:
        os.close(writing)
        if count > 1:
            wait_for(lambda: list(tmp_path.glob("tiny/trials/*/checkpoint.pt")) or process.poll() is not None)
            victim = workers(process.pid)[0]
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda: len(workers(process.pid)) == 2 and victim not in workers(process.pid))
        wait_for(lambda: list(tmp_path.glob("tiny/export/*.json")) or process.poll() is not None)
        assert process.poll() is None, "it waits for somebody who reads what it has to say"
        assert status(invoke, study, tmp_path)["trials"]["done"] == 4
        given.press("Q")
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        assert process.wait() == 0
    text += given.end()
    assert "Traceback" not in text
    assert count == 1 or "killed by SIGKILL; the system does that when memory runs out); restarting" in text
    assert sum(f"trial   {number}  done" in text for number in range(4)) == 4
    assert "Report:" in text.splitlines()[-1]


@slow
@pytest.mark.parametrize("count", [1, 2])
def test_one_ctrl_c_ends_what_nobody_reads(write_study: WriteStudy, dense: Path, tmp_path: Path, count: int) -> None:
    study = write_study("train.images_per_epoch = 12800")
    reading, writing = full_pipe()
    command = [PROGRAM, "run", study, "--runs", tmp_path, "--dense", dense, "--workers", str(count), "--threads", "1"]
    with subprocess.Popen(command, stdout=writing, stderr=writing) as process:
        wait_for(lambda: list(tmp_path.glob("tiny/trials/*/plan.json")) or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    os.close(reading)
    os.close(writing)


@slow
@pytest.mark.parametrize(
    ("closed", "count"), [("<&- >&- 2>&-", 1), ("<&- >&- 2>&-", 2), ("2>&-", 2), (">&- 2>/dev/full", 2)]
)
def test_closed_streams_are_no_hindrance(
    invoke: Invoke, write_study: WriteStudy, dense: Path, tmp_path: Path, count: int, closed: str
) -> None:
    study = write_study(SHORT)
    options = ("--runs", tmp_path / "r", "--dense", dense, "--workers", count, "--threads", 1)
    done = shell(f'exec "$@" {closed}', "run", study, *options, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(invoke("check", study, "--runs", tmp_path / "r", "--json"))["problems"] == []
    assert status(invoke, study, tmp_path / "r")["trials"]["done"] == 2


@slow
@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", ">&-", "2>&-", "<&-"])
def test_commands_that_read_a_study_do_without_streams(finished: Finished, tmp_path: Path, closed: str) -> None:
    study, runs, _ = finished
    for arguments in (
        ("status", study, "--runs", runs),
        ("export", study, "--runs", runs, "--format", "pth", "--out", tmp_path / "out"),
    ):
        done = shell(f'exec "$@" {closed}', *arguments, capture_output=True)
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert (tmp_path / "out" / "mobilenet.json").exists() or list((tmp_path / "out").glob("*.pth"))


@slow
def test_output_that_cannot_be_written(finished: Finished) -> None:
    where = ("status", finished[0], "--runs", finished[1])
    full = shell('"$@" > /dev/full', *where, capture_output=True)
    assert full.returncode not in (0, 1)
    (line,) = full.stderr.splitlines()
    assert line.startswith("prune-search: standard output: No space left on device")
    assert shell('"$@" 2> /dev/full', *where, "--nonsense", capture_output=True).returncode == 2
    for rest in ("| true", "| head -n 1", "2>&1 | true"):
        assert shell(f'"$@" {rest}', *where, capture_output=True).stderr == ""

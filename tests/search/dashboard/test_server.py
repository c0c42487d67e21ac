"""The dashboard in a real browser, and an intruder at its door."""

from __future__ import annotations

import base64
import json
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from processes import Command, Invoke, running, wait_for
from records import status
from studies import Finished

pytestmark = pytest.mark.slow
PASSWORD = "correct horse"


@contextmanager
def dashboard(*arguments: object, **environment: str) -> Iterator[str]:
    """The address of a dashboard in a process of its own."""
    with running(*arguments, "--port", 0, **environment) as process:
        try:
            yield _address(process)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=120) == 0
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=120)


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None and process.stderr is not None
    stream = process.stderr if "serve" in process.args else process.stdout  # type: ignore[operator]
    for line in stream:
        if match := re.search(r"Dashboard: (\S+)", line):
            return match[1]
    raise AssertionError(f"it ended: {process.stderr.read()}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs a browser: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(180_000)
    expect.set_options(timeout=60_000)
    yield page
    page.close()


def parts(address: str) -> tuple[str, str]:
    """(the server, the study's number) of a dashboard's address."""
    match = re.fullmatch(r"(http://.*?)/dashboard/studies/(\d+)", address)
    assert match is not None
    return match[1], match[2]


def ask(address: str, method: str = "GET", data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(address, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=180) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_browser_shows_the_figures_and_notes_and_downloads_the_best_network(
    page: Page, invoke: Invoke, finished: Finished, tmp_path: Path
) -> None:
    study, runs, printed = finished
    best = printed["best"]["number"]
    with dashboard("dashboard", study, "--runs", runs) as address:
        assert "//127.0.0.1:" in address
        page.goto(address)
        for title in ("Accuracy against operations", "Operations by map size", "Operations by layer", "Channels kept"):
            expect(page.locator("svg .gtitle", has_text=title).first).to_be_visible()
        expect(page.locator("svg .legendtext", has_text=f"best: trial {best}").first).to_be_visible()
        page.goto(f"{address}/note")
        expect(page.get_by_text(f"Best: trial {best}.")).to_be_visible()
        expect(page.get_by_text("prune-search export")).to_be_visible()
        page.goto(f"{address}/trials?numbers={best}")
        expect(page.get_by_text("Best so far.")).to_be_visible()
        expect(page.get_by_text("stage6", exact=True)).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 1400, "something makes the page endlessly wide"
        for name in ("plan.json", "measurement.json", "figures.html"):
            expect(page.get_by_text(name)).to_be_visible()
        card = page.locator(".MuiCard-root", has_text="model.pth").last
        with page.expect_download() as download:
            card.locator("a[download]").click()
        download.value.save_as(tmp_path / "mobilenet.pth")
    scored = json.loads(
        invoke("evaluate", tmp_path / "mobilenet.pth", "--data", "digits", "--resolution", 32, "--json")
    )
    assert scored == printed["test"]


def test_the_report_fits_a_desk_and_a_phone(page: Page, finished: Finished) -> None:
    _, runs, _ = finished
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto((runs / "tiny" / "report.html").as_uri())
        expect(page.locator(".plotly-graph-div").last).to_be_visible()
        page.wait_for_timeout(1000)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        cut_off = page.evaluate(
            """() => [...document.querySelectorAll(".gtitle, .xtitle, .ytitle, .legendtext, .xtick, .ytick")]
            .filter(text => { const box = text.getBoundingClientRect();
                              return box.left < -1 || box.right > document.documentElement.clientWidth + 1; })
            .map(text => text.textContent)"""
        )
        assert cut_off == []


def test_images_are_drawn_where_a_browser_is(browser: Browser, invoke: Invoke, finished: Finished) -> None:
    study, runs, _ = finished
    invoke("plot", study, "--runs", runs, "--images", "png", "--images", "svg")
    figures = runs / "tiny" / "figures"
    assert {path.suffix for path in figures.iterdir()} == {".png", ".svg"}
    assert (figures / "pareto.png").read_bytes().startswith(b"\x89PNG")
    assert "Accuracy against operations" in (figures / "pareto.svg").read_text()


def test_a_browser_that_does_not_work_is_told_and_waited_for_in_vain_by_nobody(
    command: Command, finished: Finished, tmp_path: Path
) -> None:
    study, runs, _ = finished
    no_browser = tmp_path / "chromium"
    no_browser.write_text("#!/bin/sh\nexit 1\n")
    no_browser.chmod(0o700)
    out = tmp_path / "new" / "report.html"
    done = command("plot", study, "--runs", runs, "--out", out, "--images", "png", BROWSER_PATH=str(no_browser))
    assert done.returncode == 2
    assert f"prune-search: --images png: {no_browser} does not work as a browser" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert [path.name for path in out.parent.iterdir()] == ["report.html"]


def test_an_intruder_gets_nothing_and_read_only_changes_nothing(
    invoke: Invoke, finished: Finished, tmp_path: Path
) -> None:
    study, runs, _ = finished
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD)
    key = {"Authorization": "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()}
    wrong = {"Authorization": "Basic " + base64.b64encode(b"me:guess").decode()}
    options = ("--host", "0.0.0.0", "--password-file", secret, "--read-only")
    with dashboard("dashboard", study, "--runs", runs, *options) as address:
        root, number = re.fullmatch(
            r"(http://.*?)/dashboard/studies/(\d+)", address.replace("0.0.0.0", "127.0.0.1")
        ).groups()  # type: ignore[union-attr]
        artifact = f"/artifacts/{number}/1/{int(number):08x}-00000000-0000"
        wait_for(lambda: ask(root + artifact, **key)[0] == 200)
        for path in ("/", "/dashboard", "/api/studies", f"/csv/{number}", artifact, "/static/../../../etc/passwd"):
            for headers in ({}, wrong):
                code, body = ask(root + path, **headers)
                assert (code, body) == (401, b"A password is needed."), path
        assert ask(f"{root}/api/studies/{number}", "DELETE")[0] == 401
        for method, path in (
            ("DELETE", f"/api/studies/{number}"),
            ("POST", f"/api/studies/{number}/rename"),
            ("PUT", f"/api/studies/{number}/note"),
            ("POST", "/api/studies"),
            ("POST", f"/api/artifacts/{number}/1"),
        ):
            assert ask(root + path, method, b"{}", **key, **{"Content-Type": "application/json"})[0] == 403
        for elsewhere in (
            "00000063-00000000-0000",
            f"{int(number):08x}-00000063-0000",
            f"{int(number):08x}-00000000-0063",
        ):
            assert ask(f"{root}/artifacts/{number}/1/{elsewhere}", **key)[0] == 404
    assert status(invoke, study, runs)["trials"]["done"] == 4


def test_serve_runs_the_study_and_ends_with_it(invoke: Invoke, finished: Finished, tmp_path: Path) -> None:
    study, runs, printed = finished
    dense = next((runs / "dense").glob("*.pth"))
    options = ("--runs", tmp_path, "--dense", dense, "--workers", 1, "--threads", 1, "--port", 0)
    with running("serve", study, *options) as process:
        address = _address(process)
        root, number = parts(address)

        def noted() -> bool:
            return b"Best so far" in ask(f"{root}/api/studies/{number}")[1]

        wait_for(noted)  # while it runs
        assert process.poll() is None
        stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert "Network:" in stdout
    assert status(invoke, study, tmp_path)["best"]["score"] == printed["best"]["score"]

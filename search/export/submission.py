"""The hand-in zip that the course requires, graded by the grader's own steps before it is written."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from pruner.data.datasets import Dataset, cifar10_folder
from pruner.errors import InputError
from pruner.measurement.measure import GRADER_BATCH
from pruner.network.loading import load_dense
from pruner.system.checkpoint import save_state
from pruner.system.files import write_whole
from search.terminal.progress import Progress

_GRADER = Path(__file__).with_name("grader.py")
"""Run as a script, never imported, so that nothing of this program takes part."""


def submit(
    model: Path,
    student: str,
    notebook: Path,
    out: Path,
    data: Dataset,
    *,
    root: Path | None,
    resolution: int,
    progress: Progress,
) -> dict[str, Any]:
    """Write `<student>.zip` into the folder `out`; returns the grader's figures and the `file`.

    The zip is written only if it passes the grader's steps in a clean process.

    Raises InputError if something cannot be packed or the grader would refuse it.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", student):
        raise InputError(f"--id {student!r}: letters, digits, - and _ only; it becomes the names in the zip")
    if len(data.test) < GRADER_BATCH:
        raise InputError(f"{data.name}: {len(data.test)} test images, of which the grader would see none; 64 or more")
    _check_notebook(notebook)
    load_dense(model, data.classes)  # a foreign file is refused before the grader unpickles it
    path = out / f"{student}.zip"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: is not a folder that can be written to ({error.strerror})") from error
    with tempfile.TemporaryDirectory() as place:
        packed = Path(place) / path.name
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(model, "model/mobilenet.pth")
            archive.write(notebook, f"{student}.ipynb")
        graded = _grade(packed, _test_images(data, root, Path(place)), resolution, len(data.test), progress)
        if "refused" in graded:
            raise InputError(f"{path}: not written, the grader would refuse it: {graded['refused']}")
        write_whole(path, packed.read_bytes())
    return {**graded, "file": str(path)}


def _check_notebook(path: Path) -> None:
    """Raise InputError unless the file is a Jupyter notebook; its content is not checked further."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--notebook {path}: cannot be read ({error.strerror}); give your .ipynb") from None
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list) or "nbformat" not in content:
        raise InputError(f"--notebook {path}: is not a Jupyter notebook; give your .ipynb")


def _test_images(data: Dataset, root: Path | None, place: Path) -> Path:
    """Where the grader finds the test images: CIFAR-10's folder, or a file written for another data set."""
    if data.name == "cifar10":
        return cifar10_folder(root)
    path = place / "test.pt"
    save_state(path, {"images": data.test.images.cpu().clone(), "labels": data.test.labels.cpu()})
    return path


def _grade(packed: Path, test: Path, resolution: int, images: int, progress: Progress) -> dict[str, Any]:
    """Run the grader's steps in a Python that imports nothing of this program; returns their last line."""
    command = [sys.executable, "-I", str(_GRADER), str(packed), str(test), "--resolution", str(resolution)]
    # These make glibc keep freed memory (see `pruner.system.machine`); the steps themselves are unchanged.
    environment = {**os.environ, "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1)}
    last: dict[str, Any] = {}
    with (
        progress.task("grading as the course does", images) as bar,
        tempfile.TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last = json.loads(line)
                if "done" in last:
                    bar.set(last["done"])
        except BaseException:
            process.kill()
            raise
        process.wait()
        said.seek(0)
        errors = said.read().strip().splitlines()
    if process.returncode != 0:
        raise InputError(f"the grader's steps failed: {errors[-1] if errors else 'no message'}")
    return last

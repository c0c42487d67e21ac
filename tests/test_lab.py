"""The lab's notebook, from top to bottom."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbclient
import nbformat
import pytest

from repository import ROOT


@pytest.mark.slow
def test_the_lab_s_notebook_runs_from_top_to_bottom_on_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in ("lab.ipynb", "quickstart.toml"):
        shutil.copy(ROOT / "studies" / name, folder)
    monkeypatch.setenv("LAB_DATA", "digits")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(folder / "lab.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are the reader's to make"
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output["text"] for output in outputs if output.get("name") == "stdout")
    shown = [output.data for output in outputs if output.output_type in ("execute_result", "display_data")]
    assert sum("application/vnd.plotly.v1+json" in data for data in shown) >= 7, "figures show inline"
    assert any("accuracy_before" in data.get("text/html", "") for data in shown), "the trials are a table"
    assert "80% of the channels" in printed and "of the test images, score" in printed
    assert (tmp_path / "runs-lab" / "quickstart" / "report.html").is_file()

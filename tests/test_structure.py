"""The two rules of the design, and what the README promises, held by reading the files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pruner.network.mobilenet import fresh
from search.pipeline.parts import read_parts
from search.study.spec import read_study

ROOT = Path(__file__).parent.parent


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "pruner").glob("*.py")), ids=lambda path: path.stem)
def test_pruner_knows_nothing_of_studies(path: Path) -> None:
    foreign = ("search", "optuna", "sqlalchemy", "plotly", "click", "rich", "pydantic")
    assert not {name for name in imports(path) if name.split(".")[0] in foreign}


@pytest.mark.parametrize("path", sorted((ROOT / "search").rglob("*.py")), ids=lambda path: path.stem)
def test_search_knows_nothing_of_channels(path: Path) -> None:
    if path.stem != "grader":  # the course's own steps, which run without the rest of the program
        assert not {name for name in imports(path) if name.split(".")[0] == "torch_pruning"}
    assert "GROUPS" not in path.read_text()


def test_optunas_prune_words_have_one_home() -> None:
    for path in sorted((ROOT / "search").rglob("*.py")):
        if path.stem != "stopping":
            assert not re.search(r"should_prune|TrialPruned|TrialState\.PRUNED|optuna\.pruners", path.read_text()), path


@pytest.mark.parametrize(
    "module", ["pruner.recipe", "pruner.network.count", "search.results.records", "search.report.page"]
)
def test_what_shows_a_study_needs_no_torch(module: str) -> None:
    seen = subprocess.run([sys.executable, "-c", f"import sys, {module}; print('torch' in sys.modules)"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert seen.stdout.strip() == "False"


def test_the_top_level_holds_what_was_agreed() -> None:
    agreed = {"search", "pruner", "tests", "studies", "pyproject.toml", "README.md", "runs", "build"}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert {name for name in found - agreed if not name.endswith(".egg-info")} == set()


@pytest.mark.slow
def test_the_readmes_notebook_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    torch.save(fresh(10, 0), tmp_path / "mobilenetv2.pth")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pruned.pth").exists()


def test_the_readmes_study_files_are_valid(tmp_path: Path) -> None:
    cuts, target, variants, finalists = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (tmp_path / "cuts.toml").write_text(cuts)
    assert read_study(tmp_path / "cuts.toml").space.cut.keys() == {"stage4", "head"}
    (tmp_path / "target.toml").write_text(f"trials = 1\n{target}")
    assert read_study(tmp_path / "target.toml").train.total_epochs == 6
    (tmp_path / "variants.toml").write_text(f"trials = 1\n{target}{variants}")
    assert len(read_study(tmp_path / "variants.toml").variants) == 3
    (tmp_path / "finalists.toml").write_text(finalists)
    assert [part.takes for part in read_parts(tmp_path / "finalists.toml")] == [0, 8, 2]


def test_the_readme_has_the_two_commands_and_every_file() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "pip install -e . && prune-search run studies/quickstart.toml" in readme
    assert "pip install -e '.[test]' && pytest" in readme
    assert "pip install -e '.[test]' && pytest" in (ROOT / ".ci" / "run").read_text()
    for folder in ("pruner", "search", "studies"):
        for path in sorted((ROOT / folder).rglob("*.*")):
            if path.suffix in (".py", ".toml") and path.stem != "__init__":
                assert f"`{path.stem}" in readme or f"{path.name}" in readme, f"the README's map lacks {path}"

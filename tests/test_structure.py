"""The two rules of the design, and what the README promises, held by reading the files."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pruner.network.mobilenet import fresh
from repository import ROOT
from search.cli.main import COMMANDS
from search.pipeline.parts import read_parts
from search.study.reference import reference
from search.study.spec import read_study
from search.workers.local import _PRELOADED

COMMAND_MODULES = ", ".join(sorted({f"search.cli.{path.partition(':')[0]}" for path, _ in COMMANDS.values()}))


def test_the_fork_server_loads_modules_that_exist() -> None:
    """It passes over a wrong name without a word, and every worker would then load torch for itself."""
    for name in _PRELOADED:
        assert importlib.util.find_spec(name) is not None, name


def test_optunas_prune_words_have_one_home() -> None:
    for path in sorted((ROOT / "search").rglob("*.py")):
        if path.stem != "early_stopping":
            assert not re.search(r"should_prune|TrialPruned|TrialState\.PRUNED|optuna\.pruners", path.read_text()), path


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("pruner.recipe", {"torch"}),
        ("pruner.network.count", {"torch"}),
        ("search.results.records", {"torch", "sklearn"}),
        ("search.report.page", {"torch", "sklearn"}),
        ("search.running", {"sklearn", "optuna_dashboard"}),
        (COMMAND_MODULES, {"torch", "sklearn", "optuna_dashboard"}),
    ],
)
def test_commands_do_not_wait_for_what_they_do_not_need(modules: str, heavy: set[str]) -> None:
    seen = subprocess.run([sys.executable, "-c", f"import sys, {modules}; print(*sys.modules)"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert set(seen.stdout.split()) & heavy == set()


def test_the_top_level_holds_what_was_agreed() -> None:
    agreed = {"search", "pruner", "tests", "studies", "pyproject.toml", "README.md", "runs", "build"}
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert {name for name in found - agreed if not name.endswith(".egg-info")} == set()


def test_tests_are_in_folders_named_after_what_they_test() -> None:
    for package in ("pruner", "search"):
        for path in (ROOT / "tests" / package).rglob("test_*.py"):
            tested = ROOT / path.parent.relative_to(ROOT / "tests")
            assert (tested / "__init__.py").exists(), f"{path}: there is no {tested}"


@pytest.mark.slow
def test_the_readmes_notebook_runs(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    torch.save(fresh(10, 0), tmp_path / "mobilenetv2.pth")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "pruned.pth").exists()


def examples(path: Path) -> list[str]:
    return re.findall(r"```toml\n(.*?)```", path.read_text(), re.DOTALL)


def test_the_documented_study_files_are_valid(tmp_path: Path) -> None:
    (cuts,) = examples(ROOT / "README.md")
    target, variants, finalists = examples(ROOT / "studies" / "README.md")
    (tmp_path / "cuts.toml").write_text(cuts)
    assert read_study(tmp_path / "cuts.toml").space.pruning_ratio.keys() == {"stage4", "head"}
    (tmp_path / "target.toml").write_text(f"trials = 1\n{target}")
    assert read_study(tmp_path / "target.toml").train.total_epochs == 6
    (tmp_path / "variants.toml").write_text(f"trials = 1\n{target}{variants}")
    assert len(read_study(tmp_path / "variants.toml").variants) == 3
    (tmp_path / "finalists.toml").write_text(finalists)
    assert [part.parents for part in read_parts(tmp_path / "finalists.toml")] == [0, 8, 2]


def test_every_key_of_a_study_file_is_documented_as_the_code_has_it() -> None:
    documented = (ROOT / "studies" / "README.md").read_text().partition("## Every key\n\n")[2]
    assert documented == reference(), "python -m search.study.reference prints what studies/README.md should end with"


def test_the_readme_has_the_two_commands_every_folder_and_every_study() -> None:
    readme, studies = ((path / "README.md").read_text() for path in (ROOT, ROOT / "studies"))
    assert "pip install -e . && prune-search run studies/quickstart.toml" in readme
    assert "pip install -e '.[test]' && pytest" in readme
    assert "pip install -e '.[test]' && pytest" in (ROOT / ".ci" / "run").read_text()
    for package in ("pruner", "search"):
        for path in (ROOT / package).glob("*/__init__.py"):
            assert f"`{package}/{path.parent.name}/`" in readme, f"the README's map lacks {path.parent}"
    for path in (ROOT / "studies").rglob("*.toml"):
        assert f"`{path.name}" in studies, f"studies/README.md lacks {path}"


def test_the_readme_stays_short() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 220
    assert max(len(line) for line in lines) < 120

"""Studies from Python: run one, then look at its trials, figures and networks. `import search` offers these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.study import Study

from search.options import Options, Workers
from search.pipeline.relay import latest, parts_of
from search.report.page import study_figures
from search.results.records import importances
from search.results.records import records as records_of
from search.results.table import COLUMNS
from search.storage.folder import StudyFolder
from search.storage.studies import Store, dense_of, load_study
from search.study.spec import StudySpec
from search.terminal.progress import Terminal

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go


@dataclass(frozen=True, slots=True)
class Result:
    """A study that has been run to its end."""

    file: Path
    """The best trial's network, as it is handed in."""
    best: dict[str, Any]
    """Its number, score, MFLOPs, accuracy on the holdout and other figures."""
    test: dict[str, Any]
    """Its grade on the test images."""
    report: Path
    """The report with all figures, an HTML page."""


def run(
    study: str | Path,
    *,
    runs: str | Path = "runs",
    changes: Mapping[str, Any] | None = None,
    dense: str | Path | None = None,
    data_root: str | Path | None = None,
    workers: int = 1,
) -> Result:
    """Run a study to its end or go on with it, as `prune-search run` does; progress goes to standard error.

    Args:
        study: The study file.
        runs: The folder that holds one folder for every study.
        changes: Keys of the study file to change, such as `{"trials": 4, "train.epochs": 2}`; the study remembers them.
        dense: The dense network's file, if not the study's.
        data_root: The folder that holds the data set's files.
        workers: Processes that run trials. With 1 the trials run in this process, on all cores; a script that asks for
            more must be guarded by `if __name__ == "__main__"`, as for any use of multiprocessing.

    Returns:
        The best network and its grade.

    Raises:
        InputError: Something that was given cannot be used; one line that says what would be right.
        Failed: The study left no network.
    """
    from search.running import run_parts  # loads torch

    options = Options(
        runs=Path(runs), dense=None if dense is None else Path(dense),
        data_root=None if data_root is None else Path(data_root),
    )  # fmt: skip
    parts, every = parts_of(Path(study), options.runs, list((changes or {}).items()))
    with Terminal() as terminal:
        ended = run_parts(Path(study), parts, every, Workers(workers), options, None, terminal)
    if ended.failed:
        raise ended.failed
    found = ended.summary
    return Result(Path(found["file"]), found["best"], found["test"], ended.result.context.folder.report)


def records(study: str | Path, *, runs: str | Path = "runs", storage: str | None = None) -> pd.DataFrame:
    """The trials of a study, a row each: state, figures, and a column for every sampled parameter.

    For a file with several searches: those of the one that was begun last.

    Raises:
        InputError: The study has not begun, or pandas is not installed.
    """
    from pruner.system.extras import need

    need("pandas", "records as a table", "notebook")
    import pandas as pd

    columns = (*COLUMNS, "feasible", "size_bytes")
    rows = []
    for r in records_of(optuna_study(study, runs=runs, storage=storage)):
        figures = {name: getattr(r, name) for name in columns}
        rows.append(figures | {f"params.{name}": value for name, value in r.sampled.items()})
    return pd.DataFrame(rows, columns=None if rows else list(columns)).set_index("number")


def optuna_study(study: str | Path, *, runs: str | Path = "runs", storage: str | None = None) -> Study:
    """The study as Optuna knows it, on the same database: to read, plot, or add to with Optuna's own functions.

    Raises:
        InputError: The study has not begun.
    """
    return _opened(study, runs, storage)[0].study


def figures(study: str | Path, *, runs: str | Path = "runs", storage: str | None = None) -> dict[str, go.Figure]:
    """The figures of the study's report by name, which a notebook shows inline: pareto, history, layers ...

    Raises:
        InputError: The study has not begun.
    """
    store, spec, _ = _opened(study, runs, storage)
    found = records_of(store.study)
    return study_figures(spec, found, importances(store.study), dense_of(store.study))


def _opened(study: str | Path, runs: str | Path, storage: str | None) -> tuple[Store, StudySpec, StudyFolder]:
    spec, folder = latest(parts_of(Path(study), Path(runs))[0], Path(runs))
    return load_study(spec, folder, storage), spec, folder

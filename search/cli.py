"""The command `prune-search`: reads options, calls the parts, prints what came out. Heavy imports wait until used."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from search.folder import StudyFolder
    from search.study_file import StudySpec

F = TypeVar("F", bound=Callable[..., None])

_study = click.argument("study", type=click.Path(path_type=Path))
_runs = click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, envvar="PRUNE_SEARCH_RUNS",
    help="Folder that holds a folder for every study.",
)  # fmt: skip
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object for scripts instead of text.")
_data_root = click.option(
    "--data-root", type=click.Path(path_type=Path),
    help="Folder with cifar-10-batches-py (default: CIFAR10_ROOT, then a cache folder; downloaded where absent).",
)  # fmt: skip


def _machine_options(function: F) -> F:
    threads = click.option("--threads", type=click.IntRange(min=0), default=0, help="Threads for torch; 0: all cores.")
    device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1 ...")
    return threads(device(function))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="prune-search")
def cli() -> None:
    """Find, by search, how far MobileNetV2 can be pruned, and take the pruned network with you.

    A study file says what is searched; try `prune-search run studies/quickstart.toml`. Everything a study makes lies
    in runs/<study>/. Any command can be interrupted and given again: it goes on where it was.
    """


@cli.command()
@_study
@click.option("--base", type=click.Path(path_type=Path), help="A finished dense network (.pth) to prune.")
@_data_root
@_runs
@_machine_options
@_json
def run(
    study: Path, base: Path | None, data_root: Path | None, runs: Path, threads: int, device: str, as_json: bool
) -> None:
    """Run or continue STUDY (a TOML file) until its trials are done; then draw the report, export the best network
    and grade it on the test images."""
    from pruner.machine import prepare
    from search.bench import open_bench, open_data
    from search.deliver import finish
    from search.progress import Progress
    from search.results import headline, records
    from search.storage import claim_dense, open_study
    from search.worker import work

    spec, folder = _open(study, runs)
    chosen = prepare(threads, device)
    folder.create()
    progress = Progress()
    opened = open_study(spec, folder)
    data = open_data(spec, data_root, chosen)
    bench = open_bench(spec, folder, data, base, progress)
    claim_dense(opened, bench.key)
    work(opened, bench)
    result = finish(opened, spec, folder, data, progress)
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(headline(records(opened)))
    if "test" in result:
        _print_grade(result["test"])
        click.echo(f"Network: {result['file']}")
    click.echo(f"Report:  {folder.report}")


@cli.command()
@_study
@_data_root
@_runs
@_machine_options
@click.option("--out", type=click.Path(path_type=Path), help="Also write the network here.")
def base(study: Path, data_root: Path | None, runs: Path, threads: int, device: str, out: Path | None) -> None:
    """Train the dense network that STUDY asks for in [base]; `run` then finds it. Goes on if it was interrupted."""
    from pruner.export import export_module
    from pruner.loading import load_network
    from pruner.machine import prepare
    from search.bench import open_data
    from search.dense import train_dense
    from search.grade import grade
    from search.progress import Progress

    spec, folder = _open(study, runs)
    chosen = prepare(threads, device)
    folder.create()
    progress = Progress()
    data = open_data(spec, data_root, chosen)
    path = train_dense(spec, data, folder, progress)
    if out is not None:
        export_module(load_network(path), out)
    _print_grade(asdict(grade(path, data, spec.score, spec.data.resolution, chosen, progress)))
    click.echo(f"Network: {out or path}")


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", "name", type=click.Choice(["cifar10", "digits"]), default="cifar10", show_default=True)
@_data_root
@click.option("--resolution", type=click.IntRange(min=8), default=224, show_default=True, help="Pixels a side.")
@_machine_options
@_json
def score(
    model: Path, name: str, data_root: Path | None, resolution: int, threads: int, device: str, as_json: bool
) -> None:
    """Grade MODEL (a .pth) as the course does: operations, accuracy on the test images, score.

    The file is loaded without running any code in it; anything but a MobileNetV2 is refused.
    """
    from pruner.data import load
    from pruner.loading import load_network
    from pruner.machine import prepare
    from search.grade import grade
    from search.progress import Progress
    from search.score import ScoreRule

    chosen = prepare(threads, device)
    load_network(model)  # a bad file is told before the data set is read
    data = load(name, data_root).to(chosen)
    result = asdict(grade(model, data, ScoreRule(), resolution, chosen, Progress()))
    if as_json:
        click.echo(json.dumps(result))
    else:
        _print_grade(result)


@cli.command()
@_study
@_runs
@_json
def status(study: Path, runs: Path, as_json: bool) -> None:
    """Show how far STUDY has come: its trials by state, the best, a line for each trial."""
    from search.results import best, describe, headline, records, summary
    from search.storage import load_study

    spec, folder = _open(study, runs)
    found = records(load_study(spec, folder))
    if as_json:
        click.echo(json.dumps({"study": spec.name, **summary(found), "records": [asdict(r) for r in found]}))
        return
    for r in found:
        click.echo(describe(r, is_best=r == best(found)))
    click.echo(headline(found))


@cli.command()
@_study
@_runs
def plot(study: Path, runs: Path) -> None:
    """Draw STUDY's report, one HTML file: Pareto front with lines of equal score, history, what matters."""
    from search.deliver import write_report
    from search.storage import load_study

    spec, folder = _open(study, runs)
    write_report(load_study(spec, folder), spec, folder)
    click.echo(f"Report:  {folder.report}")


@cli.command()
@_study
@click.option("--trial", type=click.IntRange(min=0), help="Which trial (default: the best by score).")
@click.option("--out", type=click.Path(path_type=Path), help="The file to write (default: in the study's folder).")
@_runs
@_json
def export(study: Path, trial: int | None, out: Path | None, runs: Path, as_json: bool) -> None:
    """Write a trial's pruned network as one .pth of stock classes, as the course wants it."""
    from search.deliver import export_trial
    from search.storage import load_study

    spec, folder = _open(study, runs)
    number, path = export_trial(load_study(spec, folder), spec, folder, trial, out)
    if as_json:
        click.echo(json.dumps({"trial": number, "file": str(path), "size_bytes": path.stat().st_size}))
    else:
        click.echo(f"Network: {path} (trial {number}, {path.stat().st_size:,} bytes)")


# ---------------------------------------------------------------- shared by the commands


def _open(study: Path, runs: Path) -> tuple[StudySpec, StudyFolder]:
    from search.folder import StudyFolder
    from search.study_file import read_study

    spec = read_study(study)
    return spec, StudyFolder(runs / spec.name)


def _print_grade(graded: dict[str, Any]) -> None:
    click.echo(
        f"Test images: {graded['accuracy']:.2%} right ({graded['accuracy_drop_last']:.2%} as the grader's loader sees "
        f"them), {graded['mflops']:.3f} MFLOPs, score {graded['score']:.2f}; {graded['params']:,} parameters, "
        f"{graded['size_bytes']:,} bytes"
    )
    if not graded["originates_from_mobilenetv2"]:
        click.echo("Warning: its structure is no longer MobileNetV2's; the course would refuse it.")


def main() -> NoReturn:
    """Run the command; every error a user can cause is one line on standard error, without a traceback."""
    from pruner.errors import InputError

    def stop(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        cli.main(standalone_mode=False)
    except InputError as error:
        _fail(str(error))
    except click.ClickException as error:
        _fail(error.format_message())
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}; nothing finished is lost, give the same command again afterwards")
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; give the same command again to go on", code=130)
    except Exception as error:
        from sqlalchemy.exc import DatabaseError

        if not isinstance(error, DatabaseError):
            raise
        _fail(f"the study's database: {error.orig}; nothing finished is lost, give the same command again afterwards")
    sys.exit(0)


def _fail(message: str, code: int = 2) -> NoReturn:
    with contextlib.suppress(BrokenPipeError):
        click.echo(f"prune-search: {' '.join(message.split())}", err=True)
    sys.exit(code)

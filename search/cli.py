"""The command `prune-search`: reads options, calls the parts, prints what came out. Heavy imports wait until used."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import NoReturn

import click

from search.cli_options import (
    artifacts_option,
    data_root_option,
    json_option,
    machine_options,
    open_files,
    options,
    print_grade,
    runs_option,
    storage_option,
    study_argument,
)
from search.cli_run import base, run, worker
from search.options import Options

_TRY_AGAIN = 75
"""The exit status when something outside is at fault that may pass (EX_TEMPFAIL)."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="prune-search")
def cli() -> None:
    """Find, by search, how far MobileNetV2 can be pruned, and take the pruned network with you.

    A study file says what is searched; try `prune-search run studies/quickstart.toml`. Everything a study makes lies
    in runs/<study>/. Any command can be interrupted and given again: it goes on where it was.
    """


@cli.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", "name", type=click.Choice(["cifar10", "digits"]), default="cifar10", show_default=True)
@data_root_option
@click.option("--resolution", type=click.IntRange(min=8), default=224, show_default=True, help="Pixels a side.")
@machine_options
@json_option
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
    from search.progress import Terminal
    from search.score import ScoreRule

    chosen = prepare(threads, device)
    load_network(model)  # a bad file is told before the data set is read
    data = load(name, data_root).to(chosen)
    result = asdict(grade(model, data, ScoreRule(), resolution, chosen, Terminal()))
    if as_json:
        click.echo(json.dumps(result))
    else:
        print_grade(result)


@cli.command()
@study_argument
@runs_option
@storage_option
@json_option
def status(study: Path, runs: Path, storage: str | None, as_json: bool) -> None:
    """Show how far STUDY has come: its trials by state, the best, a line for each trial."""
    from search.results import best, describe, headline, records, summary
    from search.storage import load_study

    spec, folder = open_files(study, runs)
    found = records(load_study(spec, folder, storage).study)
    if as_json:
        click.echo(json.dumps({"study": spec.name, **summary(found), "records": [asdict(r) for r in found]}))
        return
    for r in found:
        click.echo(describe(r, is_best=r == best(found)))
    click.echo(headline(found))


@cli.command()
@study_argument
@runs_option
@storage_option
def plot(study: Path, runs: Path, storage: str | None) -> None:
    """Draw STUDY's report, one HTML file: Pareto front with lines of equal score, history, what matters."""
    from search.deliver import write_report
    from search.storage import load_study

    spec, folder = open_files(study, runs)
    write_report(load_study(spec, folder, storage).study, spec, folder)
    click.echo(f"Report:  {folder.report}")


@cli.command()
@study_argument
@click.option("--trial", type=click.IntRange(min=0), help="Which trial (default: the best by score).")
@click.option("--out", type=click.Path(path_type=Path), help="The file to write (default: in the study's folder).")
@runs_option
@storage_option
@artifacts_option
@json_option
def export(
    study: Path,
    trial: int | None,
    out: Path | None,
    runs: Path,
    storage: str | None,
    artifacts: str | None,
    as_json: bool,
) -> None:
    """Write a trial's pruned network as one .pth of stock classes, as the course wants it."""
    from search.artifacts import Shared, artifact_store
    from search.deliver import export_trial
    from search.storage import load_study

    spec, folder = open_files(study, runs)
    shared = Shared(load_study(spec, folder, storage), *artifact_store(artifacts))
    number, path = export_trial(shared, spec, folder, trial, out)
    if as_json:
        click.echo(json.dumps({"trial": number, "file": str(path), "size_bytes": path.stat().st_size}))
    else:
        click.echo(f"Network: {path} (trial {number}, {path.stat().st_size:,} bytes)")


@cli.command()
@study_argument
@options
@click.option("--mend", "mending", is_flag=True, help="Do what the list says would be done.")
@json_option
def check(study: Path, options: Options, mending: bool, as_json: bool) -> None:
    """Verify STUDY: every finished trial has its files, every file its trial, and both say the same.

    Lists what does not agree and what --mend would do about it; a trial whose files are lost is made again from its
    last checkpoint. Exits with 1 if something is left to mend.
    """
    from search.artifacts import Shared, artifact_store
    from search.check import find_problems
    from search.progress import Terminal
    from search.storage import load_study

    spec, folder = open_files(study, options.runs)
    shared = Shared(load_study(spec, folder, options.storage), *artifact_store(options.artifacts))
    problems = find_problems(shared, folder, Terminal())
    left = [problem.what for problem in problems]
    if problems and mending:
        from search.mend import mend
        from search.setup import set_up

        left = mend(problems, set_up(spec, folder, options, Terminal()))
    if as_json:
        click.echo(json.dumps({"problems": [problem.as_json() for problem in problems], "left": left}))
    else:
        for problem in problems:
            where = "" if problem.trial is None else f"trial {problem.trial}: "
            click.echo(f"{where}{problem.what}  ->  {problem.remedy or 'cannot be mended here'}")
        if problems and not mending:
            click.echo(f"{len(problems)} to mend; give the command again with --mend.")
        elif problems:
            click.echo(f"{len(problems) - len(left)} of {len(problems)} mended.")
            for line in left:
                click.echo(f"Left: {line}")
        else:
            click.echo("The study is in order.")
    if left:
        sys.exit(1)


for command in (run, worker, base):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command; every error a user can cause is one line on standard error, without a traceback."""
    from pruner.errors import InputError
    from search.interrupt import INTERRUPTED, install

    install()
    afterwards = "nothing finished is lost, give the same command again afterwards"
    try:
        cli.main(standalone_mode=False)
    except InputError as error:
        _fail(str(error))
    except click.ClickException as error:
        _fail(error.format_message())
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}; {afterwards}", _TRY_AGAIN)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; give the same command again to go on", INTERRUPTED)
    except Exception as error:
        from optuna.exceptions import StorageInternalError
        from sqlalchemy.exc import DatabaseError, InterfaceError

        from search.database import LockLost, reason

        if not isinstance(error, DatabaseError | InterfaceError | StorageInternalError | LockLost):
            raise
        _fail(f"the study's database: {reason(error)}; {afterwards}", _TRY_AGAIN)
    sys.exit(0)


def _fail(message: str, code: int = 2) -> NoReturn:
    with contextlib.suppress(BrokenPipeError):
        click.echo(f"prune-search: {' '.join(message.split())}", err=True)
    sys.exit(code)

"""The command `check`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from search.cli.opening import open_files, open_shared
from search.cli.options import json_option, options, study_argument
from search.exit_status import ExitStatus
from search.integrity.check import Problem, find_problems
from search.integrity.rebuild import rebuild
from search.options import Options
from search.storage.studies import Damaged
from search.terminal.progress import Terminal


@click.command()
@study_argument
@options
@click.option("--fix", "fixing", is_flag=True, help="Carry out the listed remedies.")
@json_option
def check(study: Path, options: Options, fixing: bool, as_json: bool) -> None:
    """Verify STUDY: every finished trial has its files, every file has its trial, and their figures agree.

    The command lists every problem and what --fix would do about it. A trial whose files are lost is run again from
    its last checkpoint. If the database is damaged (status 5), --fix builds a new one from the trials' files and keeps
    the old one beside it. The command exits with 1 if something is left to fix.
    """
    spec, folder = open_files(study, options.runs)
    if fixing:
        folder.create()
    with Terminal() as terminal:

        def found() -> list[Problem]:
            return find_problems(open_shared(spec, folder, options.storage, options.artifacts), folder, terminal)

        try:
            problems = found()
        except Damaged:
            if not fixing:
                raise
            click.echo(rebuild(spec, folder, options.storage), err=as_json)
            problems = found()
        left = [problem.what for problem in problems]
        if problems and fixing:
            from search.integrity.fix import fix
            from search.workers.setup import set_up

            left = fix(problems, set_up(spec, folder, options, terminal))
    if as_json:
        click.echo(json.dumps({"problems": [problem.as_json() for problem in problems], "left": left}))
    else:
        for problem in problems:
            where = "" if problem.trial is None else f"trial {problem.trial}: "
            click.echo(f"{where}{problem.what}  ->  {problem.remedy or 'cannot be fixed here'}")
        if problems and not fixing:
            click.echo(f"{len(problems)} to fix; run the command again with --fix.")
        elif problems:
            click.echo(f"{len(problems) - len(left)} of {len(problems)} fixed.")
            for line in left:
                click.echo(f"Not fixed: {line}")
        else:
            click.echo("The study is in order.")
    if left:
        sys.exit(ExitStatus.LEFT_TO_FIX)

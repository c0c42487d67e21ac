"""The command `prune-search`.

A subcommand's module is imported only when it is used, and what needs torch only when the command does its work, so
that neither `status` nor any `--help` waits for it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import sys
import traceback
from typing import NoReturn

import click

from pruner.system.machine import keep_freed_memory
from search.database.address import without_secrets
from search.database.failures import ended_by
from search.exit_status import ExitStatus
from search.signals import install
from search.terminal.streams import open_streams

COMMANDS = {
    "init": ("init:init", "Write a study file for your images and your goal."),
    "run": ("run:run", "Run or continue a study; then report, export and grade."),
    "serve": ("run:serve", "Run a study and show it in the browser."),
    "worker": ("worker:worker", "Join a study as one more worker."),
    "train-dense": ("train_dense:train_dense", "Train the dense network of a study."),
    "status": ("show:status", "Show how far a study has come."),
    "plot": ("show:plot", "Draw the report of a study, or compare several."),
    "dashboard": ("show:dashboard", "Show a study in the browser."),
    "check": ("check:check", "Verify a study's files and database, and fix them."),
    "predictor": ("predictor:predictor", "Check how well untrained evaluation predicts training."),
    "export": ("export:export", "Write a trial's network for other programs."),
    "mlflow": ("mlflow:mlflow", "Log a study's trials to MLflow."),
    "submit": ("export:submit", "Pack the course's hand-in zip."),
    "evaluate": ("models.evaluate:evaluate", "Grade a network on the test images."),
    "compare": ("models.evaluate:compare", "Compare several networks."),
    "benchmark": ("models.benchmark:benchmark", "Time networks: latency and images a second."),
    "predict": ("models.predict:predict", "Classify image files."),
    "sensitivity": ("models.sensitivity:sensitivity", "Find how much of each layer can be pruned."),
}
"""Command -> (its module and function in this folder, its one-line help)."""


class _Commands(click.Group):
    """The commands by name; each is imported when it is first used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, function = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f"search.cli.{module}"), function)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, short) for name, (_, short) in COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="prune-search")
def cli() -> None:
    """Find, by search, how far MobileNetV2 can be pruned, and export the pruned network.

    A study file defines the search; try `prune-search run studies/quickstart.toml`. A study writes everything to
    runs/<study>/. Any command can be interrupted and run again: it continues where it stopped.
    """


def program() -> NoReturn:
    """Run `main` and end the process at once: Python would take almost two seconds to tear down torch."""
    keep_freed_memory()
    open_streams()
    code: object = 1
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
    if code != ExitStatus.INTERRUPTED:  # after an interrupt, unread output is dropped
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
    atexit._run_exitfuncs()
    os._exit(code if isinstance(code, int) else 0)


def main() -> NoReturn:
    """Run the command; print an error that a user can cause as one line on standard error, without a traceback."""
    install()
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        _fail(error.format_message(), ExitStatus.BAD_INPUT)
    except (Exception, KeyboardInterrupt) as error:
        ended = ended_by(KeyboardInterrupt() if isinstance(error, click.Abort) else error)
        if ended is None:
            raise
        _fail(str(ended), ended.status)
    sys.exit(ExitStatus.DONE)


def _fail(message: str, code: ExitStatus) -> NoReturn:
    with contextlib.suppress(OSError):
        click.echo(f"prune-search: {' '.join(without_secrets(message).split())}", err=True)
    sys.exit(code)

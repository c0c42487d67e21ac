"""The command `prune-search`: reads options, calls the parts, prints what came out. Heavy imports wait until used."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import traceback
from typing import NoReturn

import click

from search.cli.predictor import forecast
from search.cli.run import base, run, serve, worker
from search.cli.sensitivity import scan
from search.cli.show import check, dashboard, plot, status
from search.cli.take import compare, export, score, submit
from search.exit_status import AFTERWARDS, ExitStatus, Failed, of_system
from search.terminal.streams import open_streams


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="prune-search")
def cli() -> None:
    """Find, by search, how far MobileNetV2 can be pruned, and take the pruned network with you.

    A study file says what is searched; try `prune-search run studies/quickstart.toml`. Everything a study makes lies
    in runs/<study>/. Any command can be interrupted and given again: it goes on where it was.
    """


for command in (
    run, serve, worker, base, status, plot, dashboard, check, forecast, export, submit, score, compare, scan,
):  # fmt: skip
    cli.add_command(command)


def program() -> NoReturn:
    """`main` as a process of its own, which ends at once: taking torch apart would take Python almost two seconds."""
    open_streams()
    code: object = 1
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        from search.storage.address import without_secrets

        print(without_secrets(traceback.format_exc()), end="", file=sys.stderr)
    if code != ExitStatus.INTERRUPTED:  # what is left to say then is what nobody read
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
    atexit._run_exitfuncs()
    os._exit(code if isinstance(code, int) else 0)


def main() -> NoReturn:
    """Run the command; every error a user can cause is one line on standard error, without a traceback."""
    from pruner.errors import InputError
    from search.signals import install

    install()
    try:
        cli.main(standalone_mode=False)
    except Failed as error:
        _fail(str(error), error.status)
    except InputError as error:
        _fail(str(error))
    except click.ClickException as error:
        _fail(error.format_message())
    except OSError as error:
        failed = of_system(error)
        _fail(str(failed), failed.status)
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted; give the same command again to go on", ExitStatus.INTERRUPTED)
    except Exception as error:
        from search.storage.database import DATABASE_ERRORS, reason

        if not isinstance(error, DATABASE_ERRORS):
            raise
        _fail(f"the study's database: {reason(error)}; {AFTERWARDS}", ExitStatus.TRY_AGAIN)
    sys.exit(ExitStatus.DONE)


def _fail(message: str, code: ExitStatus = ExitStatus.BAD_INPUT) -> NoReturn:
    from search.storage.address import without_secrets

    with contextlib.suppress(OSError):
        click.echo(f"prune-search: {' '.join(without_secrets(message).split())}", err=True)
    sys.exit(code)

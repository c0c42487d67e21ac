"""A worker of a pool as a process: what it is given, what it tells, how it ends."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pruner.errors import InputError
from search.exit_status import ExitStatus, of_system
from search.feed import Event, Feed
from search.folder import StudyFolder
from search.options import Options
from search.study_file import StudySpec


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker ended."""

    wanted: bool
    """Its work was done."""
    final: bool
    """It would end so again: no use in beginning it anew."""
    reason: str
    status: ExitStatus = ExitStatus.BAD_INPUT
    """What the pool ends with if no worker could go on and this one was the last."""


def live(spec: StudySpec, options: Options, send: Callable[[Event], None]) -> Exit:
    """A worker's whole life: set up, run trials until the budget is spent. Raises KeyboardInterrupt alone."""
    from search.database import DATABASE_ERRORS
    from search.setup import set_up
    from search.worker import work

    folder = StudyFolder(options.runs / spec.name)
    try:
        ready = set_up(spec, folder, options, Feed(send))
        return Exit(wanted=True, final=True, reason=work(ready.store, ready.bench, ready.shared, options.grace))
    except InputError as error:
        status = getattr(error, "status", ExitStatus.BAD_INPUT)
        return Exit(wanted=False, final=True, reason=str(error), status=status)
    except Exception as error:
        where = getattr(error, "filename", None)
        said = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
        _keep_traceback(folder)
        status = ExitStatus.BAD_INPUT
        if isinstance(error, OSError):
            status = of_system(error).status
        elif isinstance(error, DATABASE_ERRORS):
            status = ExitStatus.TRY_AGAIN
        reason = f"{f'{where}: ' if where else ''}{said.splitlines()[0]}"
        return Exit(wanted=False, final=False, reason=reason, status=status)


def _keep_traceback(folder: StudyFolder) -> None:
    """For whoever has to find out; the pool shows one line."""
    try:
        with folder.errors.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now().isoformat(timespec='seconds')}\n{traceback.format_exc()}\n")
    except OSError:
        pass  # the disk is full or read-only, which the line says

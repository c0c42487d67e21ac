"""A worker of a pool as a process: what it is given, what it tells, how it ends."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pruner.errors import InputError
from search.exit_status import ExitStatus, of_system
from search.options import Options
from search.patience import waiting_for_space
from search.storage.address import without_secrets
from search.storage.folder import StudyFolder
from search.study.spec import StudySpec
from search.workers.events import Event, Feed


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

    @property
    def hindered(self) -> bool:
        """Did something outside end it that may pass: a database that is away, a full disk?"""
        return self.status == ExitStatus.TRY_AGAIN


def live(spec: StudySpec, options: Options, send: Callable[[Event], None]) -> Exit:
    """A worker's whole life: set up, run trials until the budget is spent. Raises KeyboardInterrupt alone."""
    from search.storage.database import DATABASE_ERRORS, hindrance
    from search.workers.setup import set_up
    from search.workers.worker import work

    folder, feed = StudyFolder(options.runs / spec.name), Feed(send)
    try:
        with waiting_for_space(feed.line):
            ready = set_up(spec, folder, options, feed)
            return Exit(wanted=True, final=True, reason=work(ready.store, ready.context, ready.shared, options.grace))
    except Exception as error:
        if found := hindrance(error):
            return Exit(wanted=False, final=False, reason=without_secrets(found.said), status=ExitStatus.TRY_AGAIN)
        if isinstance(error, InputError):
            status = getattr(error, "status", ExitStatus.BAD_INPUT)
            return Exit(wanted=False, final=True, reason=without_secrets(str(error)), status=status)
        where = getattr(error, "filename", None)
        said = without_secrets(str(getattr(error, "strerror", None) or error)).strip() or type(error).__name__
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
            file.write(f"{datetime.now().isoformat(timespec='seconds')}\n{without_secrets(traceback.format_exc())}\n")
    except OSError:
        pass  # the disk is full or read-only, which the line says

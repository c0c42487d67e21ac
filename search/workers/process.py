"""A pool's worker as a process: what it is given, what it reports, how it ends."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pruner.errors import InputError
from search.database.address import without_secrets
from search.database.connection import hindrance
from search.database.failures import ended_by
from search.exit_status import ExitStatus
from search.options import Options
from search.patience import waiting_for_space
from search.storage.folder import StudyFolder
from search.study.spec import StudySpec
from search.terminal.events import Event, Events


@dataclass(frozen=True, slots=True)
class Exit:
    """How a worker ended."""

    wanted: bool
    """Its work was done."""
    final: bool
    """It would end the same way again, so a restart is useless."""
    reason: str
    status: ExitStatus = ExitStatus.BAD_INPUT
    """The status that the pool ends with if no worker could continue and this one was the last."""

    @property
    def hindered(self) -> bool:
        """Did an outside cause that may pass end it, such as an unreachable database or a full disk?"""
        return self.status == ExitStatus.TRY_AGAIN


def live(spec: StudySpec, options: Options, send: Callable[[Event], None]) -> Exit:
    """Run a worker to its end: set up, run trials until the budget is spent. Raises only KeyboardInterrupt."""
    from search.workers.setup import set_up  # loads torch, which the server has already done
    from search.workers.worker import work

    folder, events = StudyFolder(options.runs / spec.name), Events(send)
    try:
        with waiting_for_space(events.line):
            ready = set_up(spec, folder, options, events)
            reason = work(ready.store, ready.context, ready.shared, options.grace_period)
        return Exit(wanted=True, final=True, reason=reason)
    except Exception as error:
        if found := hindrance(error):
            return Exit(wanted=False, final=False, reason=without_secrets(found.said), status=ExitStatus.TRY_AGAIN)
        given = isinstance(error, InputError)
        if not given:
            _keep_traceback(folder)
        ended = ended_by(error)
        said = without_secrets(str(ended or error)).strip() or type(error).__name__
        status = ended.status if ended else ExitStatus.BAD_INPUT
        return Exit(wanted=False, final=given, reason=said.splitlines()[0], status=status)


def _keep_traceback(folder: StudyFolder) -> None:
    """Save the traceback for a later investigation; the pool shows one line."""
    try:
        with folder.errors.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now().isoformat(timespec='seconds')}\n{without_secrets(traceback.format_exc())}\n")
    except OSError:
        pass  # the disk is full or read-only, which the pool's line says

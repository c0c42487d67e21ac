"""A worker of a pool as a process: what it is given, what it tells, how it ends."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pruner.errors import InputError
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


def live(spec: StudySpec, options: Options, send: Callable[[Event], None]) -> Exit:
    """A worker's whole life: set up, run trials until the budget is spent. Raises KeyboardInterrupt alone."""
    from search.setup import set_up
    from search.worker import work

    folder = StudyFolder(options.runs / spec.name)
    try:
        ready = set_up(spec, folder, options, Feed(send))
        return Exit(wanted=True, final=True, reason=work(ready.store, ready.bench, ready.shared, options.grace))
    except InputError as error:
        return Exit(wanted=False, final=True, reason=str(error))
    except Exception as error:
        where = getattr(error, "filename", None)
        said = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
        _keep_traceback(folder)
        return Exit(wanted=False, final=False, reason=f"{f'{where}: ' if where else ''}{said.splitlines()[0]}")


def _keep_traceback(folder: StudyFolder) -> None:
    """For whoever has to find out; the pool shows one line."""
    try:
        with folder.errors.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now().isoformat(timespec='seconds')}\n{traceback.format_exc()}\n")
    except OSError:
        pass  # the disk is full or read-only, which the line says

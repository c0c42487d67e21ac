"""A pool of workers: a given number of processes, restarted when they die, each with its share of the machine."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from search.exit_status import AFTERWARDS, ExitStatus, Failed
from search.patience import PATIENCE_S
from search.terminal.events import Event, Finished
from search.workers.process import Exit

_DEATHS = 5
"""A worker is not restarted after this many deaths in a row without finishing a trial or living for `_LONG_S`."""
_LONG_S = 600.0
"""A worker that lived for this long counts as healthy."""
_LONGEST_PAUSE_S = 60.0
_HINDERED_PAUSE_S = 5.0
"""Pause before the restart of a worker that an outside cause kept from working."""
_STOP_S = 4.0
"""Time for workers to stop cleanly; the pool itself has one second more."""


class Handle(Protocol):
    """A running worker."""

    def exit(self) -> Exit | None:
        """How it ended; None while it runs."""

    def stop(self) -> None:
        """Ask it to stop cleanly."""

    def kill(self) -> None:
        """End it now."""


class Launcher(Protocol):
    """Starts workers: on this machine (`search.workers.local`) or on a cluster (`search.workers.cluster`)."""

    def start(self, number: int, on_event: Callable[[Event], None]) -> Handle:
        """Start worker `number` (from 0)."""


class View(Protocol):
    """Shows what a pool does."""

    def event(self, number: int, event: Event) -> None:
        """Worker `number` has reported an event."""

    def state(self, number: int, text: str) -> None:
        """Worker `number` is not working; `text` says why."""


@dataclass(slots=True)
class _Slot:
    number: int
    handle: Handle | None = None
    began: float = 0.0
    again_at: float | None = 0.0
    """When to start it; None: it runs, or is not to be restarted."""
    deaths: int = 0
    hindered: float | None = None
    """Since when an outside cause has kept it from working; None: no cause has."""
    failed: str = ""
    status: ExitStatus = ExitStatus.BAD_INPUT
    """The exit status for `failed`, the reason why it was given up."""
    done: str = ""


def run_pool(launcher: Launcher, count: int, view: View) -> str:
    """Keep `count` workers running until each has ended because its work is done, or has died too often.

    Returns why the work is done.

    Raises Failed, with the last reason and its status, if no worker could continue. An interrupt stops the workers
    cleanly.
    """
    events: queue.SimpleQueue[tuple[int, Event]] = queue.SimpleQueue()
    slots = [_Slot(number) for number in range(count)]
    try:
        while any(slot.handle is not None or slot.again_at is not None for slot in slots):
            for slot in slots:
                if slot.again_at is not None and time.monotonic() >= slot.again_at:
                    _begin(slot, launcher, events)
                elif slot.handle is not None and (ended := slot.handle.exit()):
                    _drain(events, slots, view, wait=0.0)  # its last events come before its exit
                    _on_exit(slot, ended, view)
            _drain(events, slots, view, wait=0.1)
    except BaseException:
        _stop(slots)
        raise
    if all(slot.failed for slot in slots):
        said = f"no worker could continue; the last ended because: {slots[-1].failed}"
        if any(slot.hindered is not None for slot in slots):
            raise Failed(f"{said}; {AFTERWARDS}", ExitStatus.TRY_AGAIN)
        raise Failed(said, slots[-1].status)
    return next(slot.done for slot in slots if not slot.failed)


def _begin(slot: _Slot, launcher: Launcher, events: queue.SimpleQueue[tuple[int, Event]]) -> None:
    number = slot.number
    slot.again_at, slot.began = None, time.monotonic()
    slot.handle = launcher.start(number, lambda event: events.put((number, event)))


def _drain(events: queue.SimpleQueue[tuple[int, Event]], slots: list[_Slot], view: View, wait: float) -> None:
    deadline = time.monotonic() + wait
    while True:
        try:
            number, event = events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return
        if isinstance(event, Finished):
            slots[number].deaths, slots[number].hindered = 0, None
        view.event(number, event)


def _on_exit(slot: _Slot, ended: Exit, view: View) -> None:
    slot.handle = None
    if ended.wanted:
        slot.done = ended.reason
        view.state(slot.number, "done")
        return
    now = time.monotonic()
    if ended.hindered:  # no death: it may have waited as long as it could, or met this while it started
        if slot.hindered is None or now - slot.began > 2 * PATIENCE_S:
            slot.hindered = now
        too_often, pause = now - slot.hindered > PATIENCE_S, _HINDERED_PAUSE_S
    else:
        slot.hindered = None
        slot.deaths = 1 if now - slot.began > _LONG_S else slot.deaths + 1
        too_often = slot.deaths >= _DEATHS
        pause = min(2.0 ** (slot.deaths - 1) - 1, _LONGEST_PAUSE_S)  # at once after the first death
    if ended.final or too_often:
        slot.failed, slot.status = ended.reason, ended.status
        view.state(slot.number, f"ended: {ended.reason}")
        return
    slot.again_at = now + pause
    view.state(slot.number, f"died ({ended.reason}); restarting{f' in {pause:.0f} s' if pause else ''}")


def _stop(slots: list[_Slot]) -> None:
    running = [slot.handle for slot in slots if slot.handle is not None]
    for handle in running:
        handle.stop()
    deadline = time.monotonic() + _STOP_S
    while any(handle.exit() is None for handle in running) and time.monotonic() < deadline:
        time.sleep(0.02)
    for handle in running:
        if handle.exit() is None:
            handle.kill()

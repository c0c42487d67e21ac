"""A pool's workers on a Ray cluster: Ray Core places each where its cores and its share of a GPU are free.

Ray decides where a worker runs and reports when it is lost. The pool decides whether to restart it, as for workers on
this machine. The database and the shared files hold the progress of a lost worker's trial.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pruner.errors import InputError
from pruner.system.machine import cores
from search.database.address import study_url
from search.options import Options
from search.study.spec import StudySpec, from_content
from search.terminal.events import Event
from search.workers.pool import Handle
from search.workers.process import Exit, live

_POLL_S = 0.25
_GOODBYE_S = 10
"""How long a lost cluster may keep the listener waiting at the end."""


@contextlib.contextmanager
def on_ray(
    spec: StudySpec, options: Options, count: int, gpus_per_worker: float, address: str | None
) -> Iterator[RayLauncher]:
    """Connect to Ray for as long as the block runs; yields a launcher. Raises InputError."""
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints; standard output is for our result
        launcher = RayLauncher(spec, options, count, gpus_per_worker, address)
        try:
            yield launcher
        finally:
            launcher.close()


class RayLauncher:
    """Starts workers as Ray tasks."""

    def __init__(
        self, spec: StudySpec, options: Options, count: int, gpus_per_worker: float, address: str | None
    ) -> None:
        """Join the cluster at `address` (default: RAY_ADDRESS), or start Ray on this machine alone.

        Raises InputError if Ray is not installed or not reachable, or if several machines would share an SQLite file.
        """
        try:
            import ray
            from ray.util.queue import Queue
        except ImportError:
            raise InputError("--launcher ray: needs Ray: pip install 'prune-search[ray]'") from None
        address = address or os.environ.get("RAY_ADDRESS")
        if address and study_url(options.storage, Path("study.db")).get_backend_name() == "sqlite":
            raise InputError(
                "--launcher ray: the machines of a cluster cannot share an SQLite file; give a PostgreSQL database "
                "with --storage, and a folder or bucket that all can reach with --artifacts"
            )
        self._ray, self._spec = ray, spec
        try:
            if address:
                ray.init(address=address, log_to_driver=False)
            else:
                ray.init(num_cpus=cores(), include_dashboard=False, log_to_driver=False)
        except Exception as error:  # Ray's errors have no common ancestor
            raise InputError(
                f"--launcher ray: {address or 'a new Ray instance'}: {str(error).splitlines()[0]}"
            ) from error
        threads = options.threads or (1 if address else max(1, cores() // count))
        absolute = {key: value.absolute() for key in ("runs", "dense", "data_root") if (value := getattr(options, key))}
        self._options = replace(options, threads=threads, **absolute)
        self._queue = Queue(actor_options={"num_cpus": 0})
        self._listeners: dict[int, Callable[[Event], None]] = {}
        # The pool restarts lost workers itself, so Ray must not.
        task = ray.remote(num_cpus=threads, num_gpus=gpus_per_worker, max_retries=0, max_calls=1)
        self._task = task(_work)
        self._closing = threading.Event()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def start(self, number: int, on_event: Callable[[Event], None]) -> Handle:
        self._listeners[number] = on_event
        reference = self._task.remote(number, self._spec.content(), self._options, self._queue)
        return _Task(self._ray, reference)

    def close(self) -> None:
        """Leave the cluster; an instance that this process started ends."""
        # The listener first: whoever asks a queue after the shutdown makes Ray start another instance.
        self._closing.set()
        self._listener.join(_GOODBYE_S)
        self._ray.shutdown()

    def _listen(self) -> None:
        last = False
        while not last:
            last = self._closing.wait(_POLL_S)
            try:
                while waiting := self._queue.qsize():
                    for number, event in self._queue.get_nowait_batch(min(waiting, 1000)):
                        self._listeners[number](event)
            except Exception:  # the queue's actor is gone, and the cluster with it
                return


class _Task:
    def __init__(self, ray: Any, reference: Any) -> None:
        self._ray, self._reference = ray, reference

    def exit(self) -> Exit | None:
        done, _ = self._ray.wait([self._reference], timeout=0)
        if not done:
            return None
        try:
            return self._ray.get(self._reference)
        except Exception as error:  # a lost process or machine
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            return Exit(wanted=False, final=False, reason=f"{type(error).__name__}: {lines[0] if lines else ''}")

    def stop(self) -> None:
        self._ray.cancel(self._reference, force=False)

    def kill(self) -> None:
        with contextlib.suppress(Exception):
            self._ray.cancel(self._reference, force=True)


def _work(number: int, study: dict[str, Any], options: Options, events: Any) -> Exit:
    """Run a worker to its end, in a Ray process."""
    return live(from_content(study), options, lambda event: events.put((number, event)))

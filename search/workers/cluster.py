"""A pool's workers on a Ray cluster: Ray Core finds each a place with its cores and its share of a GPU.

Ray says where a worker runs and when it is lost; that it is restarted, and how often, is the pool's matter, as for
workers on this machine. What a lost worker was at is in the database and the shared files.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from pruner.errors import InputError
from pruner.system.machine import cores
from search.options import Options
from search.storage.address import study_url
from search.study.spec import StudySpec, from_content
from search.terminal.events import Event
from search.workers.pool import Handle
from search.workers.process import Exit, live

_POLL_S = 0.25


@contextlib.contextmanager
def on_ray(
    spec: StudySpec, options: Options, count: int, gpus_per_worker: float, address: str | None
) -> Iterator[RayLauncher]:
    """A launcher, and a connection to Ray for as long as the block runs. Raises InputError."""
    with contextlib.redirect_stdout(sys.stderr):  # Ray prints, and standard output is for our result
        launcher = RayLauncher(spec, options, count, gpus_per_worker, address)
        try:
            yield launcher
        finally:
            launcher.close()


class RayLauncher:
    """Begins workers as Ray tasks."""

    def __init__(
        self, spec: StudySpec, options: Options, count: int, gpus_per_worker: float, address: str | None
    ) -> None:
        """Join the cluster at `address` (default: RAY_ADDRESS), or begin a Ray on this machine alone.

        Raises InputError if Ray is not installed or not there, or if SQLite were to serve several machines.
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
                "with --storage, and a folder or bucket all can reach with --artifacts"
            )
        self._ray, self._spec = ray, spec
        try:
            if address:
                ray.init(address=address, log_to_driver=False)
            else:
                ray.init(num_cpus=cores(), include_dashboard=False, log_to_driver=False)
        except Exception as error:  # Ray's errors have no common ancestor
            raise InputError(
                f"--launcher ray: {address or 'a Ray of its own'}: {str(error).splitlines()[0]}"
            ) from error
        threads = options.threads or (1 if address else max(1, cores() // count))
        absolute = {key: value.absolute() for key in ("runs", "dense", "data_root") if (value := getattr(options, key))}
        self._options = replace(options, threads=threads, **absolute)
        self._queue = Queue(actor_options={"num_cpus": 0})
        self._listeners: dict[int, Callable[[Event], None]] = {}
        # The pool begins lost workers again itself, so Ray must not.
        task = ray.remote(num_cpus=threads, num_gpus=gpus_per_worker, max_retries=0, max_calls=1)
        self._task = task(_work)
        threading.Thread(target=self._listen, daemon=True).start()

    def start(self, number: int, on_event: Callable[[Event], None]) -> Handle:
        self._listeners[number] = on_event
        reference = self._task.remote(number, self._spec.content(), self._options, self._queue)
        return _Task(self._ray, reference)

    def close(self) -> None:
        """Leave the cluster; a Ray of its own ends."""
        self._ray.shutdown()

    def _listen(self) -> None:
        while True:
            try:
                for number, event in self._queue.get_nowait_batch(min(self._queue.qsize(), 1000)):
                    self._listeners[number](event)
            except Exception:  # the queue's actor is gone: Ray is being shut down
                return
            time.sleep(_POLL_S)


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
    """A worker's whole life, in a process of Ray's."""
    return live(from_content(study), options, lambda event: events.put((number, event)))

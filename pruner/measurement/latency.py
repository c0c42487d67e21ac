"""How long networks take for images on this machine's CPU, measured in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from pruner.exports.formats import at_rest
from pruner.exports.onnx_file import onnx_bytes, open_onnx, session

Backend = Literal["torch", "onnxruntime"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Milliseconds for one batch, and how they were measured."""

    median_ms: float
    p90_ms: float
    """Nine of ten runs took no longer."""
    backend: str
    threads: int
    batch_size: int
    resolution: int
    runs: int

    @property
    def images_per_second(self) -> float:
        """The throughput, by the median."""
        return 1000 * self.batch_size / self.median_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A network that is ready to be timed."""

    run: Callable[[], object]
    """Classify one batch."""
    backend: Backend
    threads: int
    batch_size: int
    resolution: int


def latency(
    model: nn.Module,
    *,
    resolution: int = 224,
    batch_size: int = 1,
    threads: int = 1,
    backend: Backend = "torch",
    warmup: int = 5,
    runs: int = 30,
) -> Latency:
    """Time a network on the CPU: `warmup` runs that do not count, then `runs` that do.

    It runs in inference mode on a copy in eval mode; torch has as many threads as it had before when this returns.

    Raises InputError if the backend is not installed.
    """
    made = model_subject(model, backend, resolution=resolution, batch_size=batch_size, threads=threads)
    return in_turns([made], warmup=warmup, runs=runs)[0]


def in_turns(
    subjects: Sequence[Subject], *, warmup: int = 5, runs: int = 30, on_run: Callable[[], None] | None = None
) -> list[Latency]:
    """Time several networks in turns, one run of each (A B A B ...), so that a busy machine disturbs all alike.

    `on_run`: called after every run, the warm-up's too. Subjects with different numbers of threads belong in different
    calls: torch would start its threads anew for every run.
    """
    times: list[list[float]] = [[] for _ in subjects]
    for _ in range(warmup + runs):
        for subject, took in zip(subjects, times, strict=True):
            with _threads(subject.threads):
                took.append(_timed(subject.run))
            if on_run:
                on_run()
    return [_latency(subject, took[warmup:]) for subject, took in zip(subjects, times, strict=True)]


def model_subject(model: nn.Module, backend: Backend, *, resolution: int, batch_size: int, threads: int) -> Subject:
    """A copy of the network, to be run by that backend. Raises InputError if it is not installed."""
    if backend == "torch":
        return torch_subject(model, resolution=resolution, batch_size=batch_size, threads=threads)
    content = onnx_bytes(at_rest(model), resolution)
    return onnx_subject(content, resolution=resolution, batch_size=batch_size, threads=threads)


def torch_subject(model: nn.Module, *, resolution: int, batch_size: int, threads: int) -> Subject:
    """A copy of the network, to be run by torch."""
    still = at_rest(model).to(memory_format=torch.channels_last)
    images = _images(batch_size, resolution).to(memory_format=torch.channels_last)

    def run() -> object:
        with torch.inference_mode():
            return still(images)

    return Subject(run=run, backend="torch", threads=threads, batch_size=batch_size, resolution=resolution)


def onnx_subject(source: bytes | Path, *, resolution: int, batch_size: int, threads: int) -> Subject:
    """The network in an ONNX file, or in its content, to be run by onnxruntime.

    Raises InputError if onnxruntime is not installed, or the file is no image classifier for that resolution.
    """
    images = _images(batch_size, resolution)
    if isinstance(source, Path):
        classifier = open_onnx(source, resolution=resolution, threads=threads)

        def run() -> object:
            return classifier(images)

    else:
        opened, array = session(source, threads), images.numpy()

        def run() -> object:
            return opened.run(None, {"images": array})

    return Subject(run=run, backend="onnxruntime", threads=threads, batch_size=batch_size, resolution=resolution)


def _images(batch_size: int, resolution: int) -> torch.Tensor:
    return torch.rand(batch_size, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))


def _latency(subject: Subject, times: Sequence[float]) -> Latency:
    median, p90 = np.percentile(times, [50, 90]).round(4).tolist()
    return Latency(
        median_ms=median,
        p90_ms=p90,
        backend=subject.backend,
        threads=subject.threads,
        batch_size=subject.batch_size,
        resolution=subject.resolution,
        runs=len(times),
    )


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - began)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

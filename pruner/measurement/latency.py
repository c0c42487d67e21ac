"""How long a network takes for an image on this machine's CPU."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from pruner.system.extras import need

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
    images = torch.rand(batch_size, 3, resolution, resolution, generator=torch.Generator().manual_seed(0))
    still = copy.deepcopy(model).cpu().float().eval()
    with _threads(threads):
        run = _torch_run(still, images) if backend == "torch" else _onnxruntime_run(still, images.numpy(), threads)
        times = [_timed(run) for _ in range(warmup + runs)][warmup:]
    median, p90 = np.percentile(times, [50, 90]).round(4).tolist()
    return Latency(
        median_ms=median,
        p90_ms=p90,
        backend=backend,
        threads=threads,
        batch_size=batch_size,
        resolution=resolution,
        runs=runs,
    )


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - began)


def _torch_run(model: nn.Module, images: torch.Tensor) -> Callable[[], object]:
    model.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)

    def run() -> object:
        with torch.inference_mode():
            return model(images)

    return run


def _onnxruntime_run(model: nn.Module, images: np.ndarray, threads: int) -> Callable[[], object]:
    runtime = need("onnxruntime", "latency by onnxruntime", "onnx")
    from pruner.exports.formats import onnx_bytes

    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = runtime.InferenceSession(onnx_bytes(model, images.shape[-1]), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": images})


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)

"""How fast networks are on this machine: latency and throughput by backend and number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from pruner.errors import InputError
from pruner.exports.formats import at_rest, available, require
from pruner.exports.onnx_file import onnx_bytes
from pruner.measurement.latency import Backend, Latency, Subject, in_turns, onnx_subject, torch_subject
from pruner.network.file_kinds import is_onnx
from search.models.network import open_network
from search.results.table import text_table
from search.terminal.progress import Progress

_WARMUP, _WARMUP_OF_BATCHES = 5, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """One network, run by one backend with so many threads."""

    file: str
    backend: Backend
    threads: int
    latency: Latency
    """Of one image."""
    throughput: Latency
    """Of a batch."""
    images_per_second: float
    """In batches, by their median."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network and the backend that is to run it."""

    file: Path
    backend: Backend
    source: nn.Module | bytes | Path
    """For torch a network, for onnxruntime ONNX: its content or a file."""

    def subject(self, resolution: int, batch_size: int, threads: int) -> Subject:
        """The network, ready to be timed."""
        if isinstance(self.source, nn.Module):
            return torch_subject(self.source, resolution=resolution, batch_size=batch_size, threads=threads)
        return onnx_subject(self.source, resolution=resolution, batch_size=batch_size, threads=threads)


def open_candidates(
    paths: Sequence[Path], backends: Sequence[Backend], resolution: int, progress: Progress
) -> list[Candidate]:
    """Open each file for each backend that can run it: ONNX files for onnxruntime alone.

    `backends`: empty for all that are installed. Raises InputError if a file holds no network, or no backend runs it.
    """
    for backend in backends:
        if backend == "onnxruntime":
            require("onnx")
    chosen = backends or (("torch", "onnxruntime") if "onnx" in available() else ("torch",))
    opened = []
    for path in paths:  # a bad file is reported before anything takes time
        if is_onnx(path) and backends and "onnxruntime" not in backends:
            raise InputError(f"{path}: is an ONNX model, which torch does not run; leave out --backend")
        opened.append(open_network(path, resolution))
    found: list[Candidate] = []
    with progress.task("opening", len(paths), unit="networks") as bar:
        for network in opened:
            path, model = network.path, network.model
            bar.say(f"opening {path.name}")
            if model is None:
                found.append(Candidate(path, "onnxruntime", path))
            if model is not None and "torch" in chosen:
                found.append(Candidate(path, "torch", model))
            if model is not None and "onnxruntime" in chosen:
                found.append(Candidate(path, "onnxruntime", onnx_bytes(at_rest(model), resolution)))
            bar.advance()
    return found


def benchmark(
    candidates: Sequence[Candidate],
    *,
    threads: Sequence[int],
    resolution: int,
    batch_size: int,
    runs: int,
    progress: Progress,
) -> list[Speed]:
    """Time all networks, in turns: `runs` single images and a fifth as many batches of each, at least five."""
    batches = max(5, runs // 5)
    total = len(candidates) * len(threads) * (runs + _WARMUP + batches + _WARMUP_OF_BATCHES)
    found = []
    with progress.task("timing", total, unit="runs") as bar:
        for count in threads:
            bar.say(f"timing, threads: {count}")
            singles, wholes = (
                in_turns(
                    [one.subject(resolution, size, count) for one in candidates],
                    warmup=warmup, runs=of_each, on_run=bar.advance,
                )
                for size, warmup, of_each in ((1, _WARMUP, runs), (batch_size, _WARMUP_OF_BATCHES, batches))
            )  # fmt: skip
            found += [
                Speed(
                    file=str(one.file), backend=one.backend, threads=count, latency=single, throughput=whole,
                    images_per_second=round(whole.images_per_second, 1),
                )
                for one, single, whole in zip(candidates, singles, wholes, strict=True)
            ]  # fmt: skip
    return found


def table(speeds: Sequence[Speed]) -> str:
    """The speeds as a text table."""
    rows = [
        [
            Path(one.file).name, one.backend, str(one.threads), f"{one.latency.median_ms:.2f}",
            f"{one.latency.p90_ms:.2f}", f"{one.images_per_second:,.0f}",
        ]
        for one in speeds
    ]  # fmt: skip
    return text_table(["model", "backend", "threads", "median ms", "p90 ms", "images/s"], rows)

"""This machine's cores, memory and devices, used on purpose."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruner.errors import InputError

if TYPE_CHECKING:  # torch takes seconds to import; counting cores does not need it
    import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def cores() -> int:
    """The number of cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name, or its architecture if the system does not give a name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def available_memory() -> int:
    """Bytes of memory still available to programs; the machine's total where the system does not report that."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def prepare(threads: int = 0, device: str = "auto") -> torch.device:
    """Choose the device, and the cores to use of the CPU (0: all of this process); keep freed memory.

    Raises InputError if the device cannot be used.
    """
    import torch

    from pruner.system.cores import use_cores

    keep_freed_memory()
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {device}: cannot be used here ({reason}); try cpu") from error
    use_cores(1 if chosen.type == "cuda" else threads or cores())
    return chosen


def has_fast_half(device: torch.device) -> bool:
    """Does the device compute in bfloat16: a GPU that supports it, or a processor with AVX-512 BF16 or AMX?"""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    asked: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # from torch 2.10 on
    return device.type == "cpu" and bool(asked.get("amx_bf16") or asked.get("avx512_bf16"))


def keep_freed_memory() -> None:
    """Stop glibc from returning large tensors to the kernel after each use. To be called before any thread begins.

    glibc maps a new region for every block above 32 MiB, and the kernel clears each page again, so a batch at 224 px
    costs more in page faults than in arithmetic (two Xeon cores, batches of 32 and 64: training was 1.4 and 2 times
    slower without this; tests/benchmarks/bench_epoch.py --malloc shows it). All threads share one arena, because
    per-thread arenas are limited to 64 MiB; one that an earlier thread has made would be used on. Does nothing without
    glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_ARENA_MAX, 1)

"""This machine's cores, memory and devices, used on purpose."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruner.errors import InputError

if TYPE_CHECKING:  # torch takes seconds to import; counting cores does without
    import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def available_memory() -> int:
    """Bytes of memory that programs can still have; what the machine has where the system does not tell."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def prepare(threads: int = 0, device: str = "auto") -> torch.device:
    """Choose the device, and the cores to use of the CPU (0: all of this process); keep freed memory.

    Raises InputError for a device that is not there.
    """
    import torch

    from pruner.system.cores import use_cores

    _keep_freed_memory()
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
    """Whether bfloat16 is computed faster than float32 there: by a GPU that has it, or a processor's AMX tiles."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    asked: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # from torch 2.10 on
    return device.type == "cpu" and bool(asked.get("amx_bf16"))


def _keep_freed_memory() -> None:
    """Stop glibc from handing large tensors back to the kernel after each use.

    glibc maps every block above 32 MiB anew, and the kernel then clears each page again: a batch at 224 px costs
    more page faults than arithmetic (two Xeon cores, batches of 32 and 64: training was 1.4 and 2 times slower without
    this; tests/benchmarks/bench_epoch.py --malloc shows it). All threads share one arena: those of their own end at
    64 MiB. Elsewhere than on glibc nothing is done.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_ARENA_MAX, 1)

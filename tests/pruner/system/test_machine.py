"""Freed memory is kept: large tensors in the cores' threads cost page faults once, whatever threads began before."""

from __future__ import annotations

import subprocess
import sys

import pytest

_LARGE_TENSORS = """
import resource
import sys
import threading

import click

from search.cli import main


@click.command()
def faults():
    over = threading.Event()
    threading.Thread(target=lambda: (bytearray(100_000), over.wait())).start()  # has an arena

    import torch
    from pruner.system.cores import on_cores
    from pruner.system.machine import prepare

    def pages_cleared():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in on_cores(lambda count: torch.ones(count), [2**24] * 8):
            pass
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    prepare(2, "cpu")
    print(*[pages_cleared() for _ in range(40)])
    over.set()


main.faults = faults
main.COMMANDS["faults"] = ("main:faults", "")
sys.argv = ["prune-search", "faults"]
main.program()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_command_keeps_the_memory_of_large_tensors_beside_threads_that_began_before_torch() -> None:
    done = subprocess.run([sys.executable, "-c", _LARGE_TENSORS], capture_output=True, text=True, timeout=300)
    pages = [int(count) for count in done.stdout.split()]
    assert len(pages) == 40, done.stderr
    assert sum(pages[20:]) < 20 * 2**24 * 4 // 4096, pages  # a tensor a round; the heap still grows by chance

"""One way to use the cores of a CPU: whole parts of the work, a single-threaded one on each core.

Torch's own threads share every operation, and spin while they wait for each other at its end: a small network's step
has hundreds of such meetings, and beside another busy process each waits for a thread that is not running. Here a core
takes a part (say, 32 images) through the network on its own. Results come in the order of the parts, so sums are formed
in the same order, and numbers are equal, on any number of cores.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

R = TypeVar("R")

_threads: ThreadPoolExecutor | None = None
_count = 1


def use_cores(count: int) -> None:
    """Run the parts of `on_cores` on so many cores from now on, and leave torch's own threads at one."""
    global _threads, _count
    torch.set_num_threads(1)
    if count != _count:
        _threads, _count = (ThreadPoolExecutor(count, initializer=_begin) if count > 1 else None), count


def core_count() -> int:
    """How many cores `on_cores` runs its parts on."""
    return _count


def on_cores(function: Callable[..., R], *parts: Iterable[Any]) -> Iterator[R]:
    """What `function` makes of each part (as `map` has it), in order.

    The parts run in threads that take over the caller's grad and inference modes. They must not share what they write
    to, and must not call `on_cores` themselves. At most one part more than there are cores is taken up ahead.
    """
    if _threads is None:
        yield from map(function, *parts)
    else:
        yield from _in_order(_threads, _count, _as_here(function), *parts)


def in_threads(count: int, function: Callable[..., R], *parts: Iterable[Any]) -> Iterator[R]:
    """`on_cores` for work without torch, such as decoding images, in so many threads of its own."""
    with ThreadPoolExecutor(count) as threads:
        yield from _in_order(threads, count, function, *parts)


def _in_order(
    threads: ThreadPoolExecutor, count: int, function: Callable[..., R], *parts: Iterable[Any]
) -> Iterator[R]:
    under_way = deque[Future[R]]()
    try:
        for arguments in zip(*parts, strict=True):
            under_way.append(threads.submit(function, *arguments))
            if len(under_way) > count:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:  # an error, or a caller who takes no more: nothing runs on behind it
        for left in under_way:
            left.cancel()
        for left in under_way:
            left.cancelled() or left.exception()


def _as_here(function: Callable[..., R]) -> Callable[..., R]:
    inference, grad = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def run(*arguments: Any) -> R:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            return function(*arguments)

    return run


def _begin() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # from here on this thread keeps its number, whatever others set

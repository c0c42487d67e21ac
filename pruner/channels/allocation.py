"""Allocate a budget of operations to the layers: which width each group keeps, so that the error is least.

Pure: curves and prices in, widths out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pruner.errors import InputError

_HALVINGS = 40
_SWEEPS = 4

Price = Callable[[Mapping[str, int]], float]
"""Millions of operations of the network with these widths; linear in each of them."""


@dataclass(frozen=True, slots=True)
class WidthOptions:
    """The widths that a group may keep."""

    widths: Sequence[int]
    """Descending; the first is the full width."""
    errors: Sequence[float]
    """What each costs: 0 first, never falling."""


def allocate(options: Mapping[str, WidthOptions], price: Price, target: float, how: str) -> dict[str, int]:
    """Group -> width, such that `price` is at most `target` and close to it.

    `how`: `equal_error` prunes every group until it reaches one common error; `lagrangian` minimises the sum of the
    errors: every group is pruned until the next million of operations saved costs one common error.

    Raises InputError if even the smallest widths are above the target.
    """
    smallest = {name: choice.widths[-1] for name, choice in options.items()}
    least = price(smallest)
    if least > target:
        raise InputError(f"target_mflops: {target:g} cannot be reached, the smallest widths make {least:.3g}")
    full = {name: choice.widths[0] for name, choice in options.items()}
    if price(full) <= target:
        return full
    at = _at_equal_error if how == "equal_error" else _at_price
    low, high = 1e-9, 1e9  # of the common error, or of the error per million of operations
    found = smallest
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        widths = at(options, price, middle)
        if price(widths) <= target:
            high, found = middle, widths
        else:
            low = middle
    return _filled(found, options, price, target)


def _at_equal_error(options: Mapping[str, WidthOptions], _price: Price, error: float) -> dict[str, int]:
    return {
        name: min(width for width, cost in zip(choice.widths, choice.errors, strict=True) if cost <= error)
        for name, choice in options.items()
    }


def _at_price(options: Mapping[str, WidthOptions], price: Price, rate: float) -> dict[str, int]:
    """Widths at which no group gains by another width, if an error of `rate` is worth a million of operations."""
    widths = {name: choice.widths[0] for name, choice in options.items()}
    for _ in range(_SWEEPS):  # what a channel costs depends on its neighbours' widths
        before = dict(widths)
        for name, choice in options.items():
            each = price({**widths, name: 1}) - price({**widths, name: 0})
            costs = [error + rate * each * width for width, error in zip(choice.widths, choice.errors, strict=True)]
            widths[name] = choice.widths[costs.index(min(costs))]
        if widths == before:
            break
    return widths


def _filled(widths: dict[str, int], options: Mapping[str, WidthOptions], price: Price, target: float) -> dict[str, int]:
    """Give back what still fits: the step that saves most error for its operations first."""
    widths = dict(widths)
    while True:
        best, gain = None, 0.0
        now = price(widths)
        for name, choice in options.items():
            place = choice.widths.index(widths[name])
            if place == 0:
                continue
            wider = {**widths, name: choice.widths[place - 1]}
            added = price(wider) - now
            saved = (choice.errors[place] - choice.errors[place - 1]) / max(added, 1e-9)
            if now + added <= target and (best is None or saved > gain):
                best, gain = wider, saved
        if best is None:
            return widths
        widths = best

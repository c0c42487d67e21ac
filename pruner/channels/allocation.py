"""Allocate a budget of operations to the groups of channels so that the error is least.

Pure functions: error curves and prices in, widths out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pruner.errors import InputError

_HALVINGS = 40
_SWEEPS = 4

Price = Callable[[Mapping[str, int]], float]
"""Widths -> MFLOPs of the network with these widths; linear in each width."""


@dataclass(frozen=True, slots=True)
class WidthOptions:
    """The widths that a group may keep."""

    widths: Sequence[int]
    """Descending; the first is the full width."""
    errors: Sequence[float]
    """The error at each width: 0 first, never falling."""


def allocate(options: Mapping[str, WidthOptions], price: Price, target: float, how: str) -> dict[str, int]:
    """Choose a width for each group so that `price` is at most `target` and close to it.

    `how`: `equal_error` prunes every group to one common error. `lagrangian` minimises the sum of the errors: it prunes
    every group until saving another million operations would cost the same error in all of them.

    Raises InputError if the smallest widths already exceed the target.
    """
    smallest = {name: choice.widths[-1] for name, choice in options.items()}
    least = price(smallest)
    if least > target:
        raise InputError(f"target_mflops: {target:g} cannot be reached, the smallest widths make {least:.3g}")
    full = {name: choice.widths[0] for name, choice in options.items()}
    if price(full) <= target:
        return full
    at = _at_equal_error if how == "equal_error" else _at_price
    low, high = 1e-9, 1e9  # bounds of the common error, or of the error per million operations
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
    """Widths at which no group gains by changing its width, if a million operations are worth an error of `rate`."""
    widths = {name: choice.widths[0] for name, choice in options.items()}
    for _ in range(_SWEEPS):  # a channel's cost depends on its neighbours' widths
        before = dict(widths)
        for name, choice in options.items():
            each = price({**widths, name: 1}) - price({**widths, name: 0})
            costs = [error + rate * each * width for width, error in zip(choice.widths, choice.errors, strict=True)]
            widths[name] = choice.widths[costs.index(min(costs))]
        if widths == before:
            break
    return widths


def _filled(widths: dict[str, int], options: Mapping[str, WidthOptions], price: Price, target: float) -> dict[str, int]:
    """Widen groups step by step while the target allows, first where most error is saved per operation."""
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

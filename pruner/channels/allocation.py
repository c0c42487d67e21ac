"""A budget of operations spread over the layers: which width each group keeps, so that the error is least.

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
class Menu:
    """What a group can be cut to."""

    widths: Sequence[int]
    """Descending; the first is the full width."""
    errors: Sequence[float]
    """What each costs: 0 first, never falling."""


def spread_budget(menus: Mapping[str, Menu], price: Price, target: float, how: str) -> dict[str, int]:
    """Group -> width, such that `price` is at most `target` and close to it.

    `how`: `error`, every group is cut as far as one tolerated error allows; or `exchange`, the sum of the errors is
    made small: groups are cut as far as the same error per million of operations saved allows.

    Raises InputError if even the smallest widths are above the target.
    """
    smallest = {name: menu.widths[-1] for name, menu in menus.items()}
    least = price(smallest)
    if least > target:
        raise InputError(f"target_mflops: {target:g} cannot be reached, the smallest widths make {least:.3g}")
    full = {name: menu.widths[0] for name, menu in menus.items()}
    if price(full) <= target:
        return full
    at = _tolerated if how == "error" else _exchanged
    low, high = 1e-9, 1e9  # of the tolerated error, or of the error per million of operations
    found = smallest
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        widths = at(menus, price, middle)
        if price(widths) <= target:
            high, found = middle, widths
        else:
            low = middle
    return _filled(found, menus, price, target)


def _tolerated(menus: Mapping[str, Menu], _price: Price, error: float) -> dict[str, int]:
    return {
        name: min(width for width, cost in zip(menu.widths, menu.errors, strict=True) if cost <= error)
        for name, menu in menus.items()
    }


def _exchanged(menus: Mapping[str, Menu], price: Price, rate: float) -> dict[str, int]:
    """Widths at which no group gains by another width, if an error of `rate` is worth a million of operations."""
    widths = {name: menu.widths[0] for name, menu in menus.items()}
    for _ in range(_SWEEPS):  # what a channel costs depends on its neighbours' widths
        before = dict(widths)
        for name, menu in menus.items():
            each = price({**widths, name: 1}) - price({**widths, name: 0})
            costs = [error + rate * each * width for width, error in zip(menu.widths, menu.errors, strict=True)]
            widths[name] = menu.widths[costs.index(min(costs))]
        if widths == before:
            break
    return widths


def _filled(widths: dict[str, int], menus: Mapping[str, Menu], price: Price, target: float) -> dict[str, int]:
    """Give back what still fits: the step that saves most error for its operations first."""
    widths = dict(widths)
    while True:
        best, gain = None, 0.0
        now = price(widths)
        for name, menu in menus.items():
            place = menu.widths.index(widths[name])
            if place == 0:
                continue
            wider = {**widths, name: menu.widths[place - 1]}
            added = price(wider) - now
            saved = (menu.errors[place] - menu.errors[place - 1]) / max(added, 1e-9)
            if now + added <= target and (best is None or saved > gain):
                best, gain = wider, saved
        if best is None:
            return widths
        widths = best

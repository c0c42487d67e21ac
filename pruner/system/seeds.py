"""Seeds made from seeds, so that everything random follows from the one in the recipe."""

from __future__ import annotations

import numpy as np


def mix(*numbers: int) -> int:
    """One seed from several numbers, spread well over 63 bits."""
    state = np.random.SeedSequence([number % 2**63 for number in numbers]).generate_state(1, np.uint64)
    return int(state[0] >> 1)

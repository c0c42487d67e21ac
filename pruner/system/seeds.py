"""Derive seeds from seeds, so that everything random follows from the recipe's seed."""

from __future__ import annotations

import numpy as np


def mix(*numbers: int) -> int:
    """Mix several numbers into one seed of 63 bits."""
    state = np.random.SeedSequence([number % 2**63 for number in numbers]).generate_state(1, np.uint64)
    return int(state[0] >> 1)

"""How states are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pruner.errors import InputError
from pruner.system.checkpoint import load_state, save_state


def test_states_come_back_and_damaged_ones_are_named(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    assert load_state(path) is None
    save_state(path, {"epoch": 2, "weights": torch.arange(3)})
    assert load_state(path)["weights"].tolist() == [0, 1, 2]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"state\.pt"):
        load_state(path)

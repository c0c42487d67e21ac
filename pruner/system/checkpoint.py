"""Save weights and other state, whole or not at all, and load them without running any code."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from pruner.errors import InputError
from pruner.system.files import write_whole


def save_state(path: Path, state: Any) -> None:
    """Write tensors and plain values, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_whole(path, buffer.getvalue())


def load_state(path: Path) -> Any | None:
    """Load what `save_state` wrote, onto the CPU, without running any code of the file; None if there is no such file.

    Raises InputError if the file is damaged.
    """
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError, KeyError, IndexError, AttributeError,
            TypeError, zipfile.BadZipFile) as error:  # fmt: skip
        raise InputError(f"{path}: damaged; delete it to compute it again") from error

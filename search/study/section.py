"""The base of all sections of a study file: keys are known, numbers are finite and within bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from pruner.schema import MFlops, Share


class Section(BaseModel):
    """A table of a study file. Its numbers are finite, and the bounds of each field exclude only what nobody can
    mean."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants")


def _usable(path: str) -> str:
    if "\0" in path:
        raise ValueError("a path has no NUL")
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{path!r}: no such user") from None
    return path


FileName = Annotated[str, AfterValidator(_usable)]
Observation = tuple[MFlops, Share, Share]
"""MFLOPs, accuracy of the untrained network, accuracy of the trained one."""
MOST_TRIALS = 1_000_000

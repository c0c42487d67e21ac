"""What every section of a study file is: its keys are known, its numbers finite and within reason."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A table of a study file. Its numbers are finite; each field says their bounds, which are generous: beyond them is
    what nobody can mean."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, ser_json_inf_nan="constants")


def _usable(path: str) -> str:
    if "\0" in path:
        raise ValueError("a path has no NUL")
    try:
        Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{path!r}: no such user") from None
    return path


Images = Annotated[int, Field(ge=0, le=10**9)]
"""How many images. More than there are means all of them."""
Epochs = Annotated[int, Field(le=100_000)]
Batch = Annotated[int, Field(ge=2, le=100_000)]
Pixels = Annotated[int, Field(ge=8, le=2048)]
"""A side of an image."""
MOST_RATE = 1e12
"""No sane learning rate comes near: one that is too high is found out by the trial, which says that it diverged."""
Rate = Annotated[float, Field(gt=0, le=MOST_RATE)]
"""A learning rate."""
MFlops = Annotated[float, Field(gt=0, le=1e6)]
FileName = Annotated[str, AfterValidator(_usable)]
Known = tuple[MFlops, Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]]
"""MFLOPs, accuracy at the cheap look, accuracy in the end."""
MOST_TRIALS = 1_000_000


def nearest(name: str, known: list[str]) -> str:
    """The end of a message about an unknown name: what may have been meant."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"

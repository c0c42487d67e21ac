"""The bounds of recipes' fields, as annotations, and the check that a value keeps to those of its own fields.

Bounds are generous: beyond them lies what nobody can mean. Pydantic enforces them in files, `Checked` in Python.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_type_hints

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from pruner.errors import InputError


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: what may have been meant."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else f"; known: {', '.join(known)}"


def one_of(known: Sequence[str]) -> AfterValidator:
    """For an annotation: the text is one of these names."""

    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"{name!r} is unknown{nearest(name, known)}")
        return name

    return AfterValidator(check)


MOST_RATE = 1e12
"""No sane learning rate comes near: one that is too high is found out by the training, which diverges."""

Images = Annotated[int, Field(ge=0, le=10**9)]
"""How many images. More than there are means all of them."""
Epochs = Annotated[int, Field(ge=0, le=100_000)]
BatchSize = Annotated[int, Field(ge=2, le=100_000)]
Pixels = Annotated[int, Field(ge=8, le=2048)]
"""A side of an image."""
Rate = Annotated[float, Field(gt=0, le=MOST_RATE, allow_inf_nan=False)]
"""A learning rate."""
MFlops = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Ratio = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
"""A fraction of channels to prune; or another share that must leave something."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A fraction that may be all, as of weights that become zero."""
Factor = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
"""Of a term in a loss, or another amount that may be none."""
Channels = Annotated[int, Field(ge=1, le=1280)]
"""The widest layer has so many."""
Steps = Annotated[int, Field(ge=1, le=100_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A value whose fields keep to their annotations, whether it comes from a file or from Python."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    def __post_init__(self) -> None:
        """Raise InputError, in one line, where a field does not keep to its annotation."""
        for name, adapter in _adapters(type(self)).items():  # type: ignore[arg-type]
            try:
                adapter.validate_python(getattr(self, name), strict=True)
            except ValidationError as error:
                raise InputError(field_error(name, error)) from None


def fields_of(value: Any, kind: Any = None) -> dict[str, Any]:
    """A dataclass's fields by name, as they are; with `kind`, only those of this one of its base classes."""
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind or value)}


def field_error(name: str, error: ValidationError) -> str:
    """What is wrong with a field, in one line."""
    first = error.errors()[0]
    where = ".".join([name, *(str(part) for part in first["loc"] if part != "[key]")])
    return f"{where}: {reason(first['type'], first['msg'], first['input'])}"


def reason(kind: str, message: str, value: object) -> str:
    """Pydantic's message as the rest of a line: what would be right, and what was given."""
    if kind in ("value_error", "assertion_error"):
        return message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{message[0].lower()}{message[1:]}, not {value!r:.200}"


@cache
def _adapters(kind: Any) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: TypeAdapter(hints[field.name]) for field in dataclasses.fields(kind)}

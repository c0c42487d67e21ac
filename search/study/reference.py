"""Every key of a study file with its default and meaning, as Markdown made from the dataclasses' docstrings.

`python -m search.study.reference` prints it; a test holds `studies/README.md` to it.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pruner import recipe, tune
from search.study.sections import PhaseSection, RungSection
from search.study.space import Range, Space
from search.study.spec import StudySpec

_SOURCES: Mapping[str, type] = {
    "train": tune.Tune,
    "base": tune.Tune,
    "train.phases": tune.Phase,
    "prune": recipe.Prune,
    "mask": recipe.Mask,
    "rounds": tune.Rounds,
}
"""Section -> where keys are explained that the section itself does not explain."""

_TABLES: Mapping[str, type[BaseModel]] = {
    "space": Space,
    "space.KEY": Range,
    "train.phases": PhaseSection,
    "finalists.rungs": RungSection,
}
"""Tables that a section's field does not name by its type, or that are lists."""


def reference() -> str:
    """A table of keys for the study file itself and for each of its sections."""
    parts = [_table("", StudySpec)]
    for name, field in StudySpec.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            parts.append(_table(name, kind))
            parts += [_table(more, of) for more, of in _TABLES.items() if more.startswith(f"{name}.")]
    return "\n".join(parts)


def _table(name: str, kind: type[BaseModel]) -> str:
    head = f"### `[[{name}]]`" if name in ("train.phases", "finalists.rungs") else f"### `[{name}]`"
    if name == "space.KEY":
        head = "### A range, such as `{ low = 0.0, high = 0.8 }`"
    lines = [head if name else "### The study itself", ""]
    if about := inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]:
        lines += [" ".join(about.split()), ""]
    lines += ["| key | default | |", "|---|---|---|"]
    said = {**_attribute_docs(_SOURCES.get(name)), **_attribute_docs(kind)}
    for key, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) and not name:
            continue
        lines.append(f"| `{key}` | {_default(field.get_default(call_default_factory=True))} | {said.get(key, '')} |")
    return "\n".join([*lines, ""])


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, BaseModel):
        return "its section's"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{value}`"


def _attribute_docs(kind: type | None) -> dict[str, str]:
    """Field name -> the docstring below it, in the class and its bases."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__ if kind else ()):
        if each.__module__.startswith(("pruner.", "search.")):
            found |= dict(_docs_in(each))
    return found


def _docs_in(kind: type) -> Iterator[tuple[str, str]]:
    (body,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(kind))).body
    statements = typing.cast(ast.ClassDef, body).body
    for field, text in itertools.pairwise(statements):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            doc = typing.cast(ast.Constant, text.value).value
            yield field.target.id, " ".join(str(doc).split()).replace("|", "\\|")


if __name__ == "__main__":
    print(reference(), end="")

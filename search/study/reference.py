"""Every key of a study file with its default and meaning, as Markdown made from the classes' docstrings.

`python -m search.study.reference` prints it; a test checks that `studies/README.md` contains it.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from pruner.train import Phase
from search.study.sections import SearchSection
from search.study.space import Range
from search.study.spec import StudySpec

_BELOW: Mapping[str, tuple[str, type]] = {
    "space": ("### A range, such as `{ low = 0.0, high = 0.8 }`", Range),
    "train": ("### `[[train.phases]]`", Phase),
    "iterative": ("### `[iterative.train]`", Phase),
    "searches": ("### `[[searches]]`", SearchSection),
}
"""Section -> heading and class of a further table below it, to which no field's type leads."""


def reference() -> str:
    """A table of keys for the study file itself and for each of its sections."""
    parts = [_table("### The study itself", StudySpec)]
    for name, kind in typing.get_type_hints(StudySpec).items():
        if _is_section(kind):
            parts.append(_table(f"### `[{name}]`", kind))
        if name in _BELOW:
            parts.append(_table(*_BELOW[name]))
    return "\n".join(parts)


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or dataclasses.is_dataclass(kind))


def _table(head: str, kind: type) -> str:
    lines = [head, ""]
    if about := inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0]:
        lines += [" ".join(about.split()), ""]
    lines += ["| key | default | |", "|---|---|---|"]
    said, hints = _attribute_docs(kind), typing.get_type_hints(kind)
    for key, default in _defaults(kind):
        if not (kind is StudySpec and _is_section(hints[key])):
            lines.append(f"| `{key}` | {_default(default)} | {said.get(key, '')} |")
    return "\n".join([*lines, ""])


def _defaults(kind: Any) -> Iterator[tuple[str, Any]]:
    if issubclass(kind, BaseModel):
        for key, field in kind.model_fields.items():
            yield key, field.get_default(call_default_factory=True)
    else:
        value = kind()
        yield from ((field.name, getattr(value, field.name)) for field in dataclasses.fields(kind))


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if dataclasses.is_dataclass(value):
        return "its section's"
    if isinstance(value, str):
        return f'`"{value}"`'
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{value}`"


def _attribute_docs(kind: type) -> dict[str, str]:
    """Field name -> the docstring below it, in the class and its bases."""
    found: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if each.__module__.startswith(("pruner.", "search.")) and each.__name__.isidentifier():
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

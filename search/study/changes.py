"""Changes to a study file that a command line gives: `--set train.epochs=4`."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from pruner.errors import InputError

Change = tuple[str, Any]
"""A key of the study file, with dots, and its value."""
_OF_THE_FILE = ("name", "extends", "continues", "directory")


def parse(text: str) -> Change:
    """The change that `KEY=VALUE` asks for. VALUE is as in the file; a word needs no quotes.

    Raises InputError: one line that says what would be right.
    """
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not all(key.split(".")):
        raise InputError(f"--set {text}: give KEY=VALUE, such as train.epochs=4")
    if key in _OF_THE_FILE:
        raise InputError(f"--set {text}: {key} can only be changed in the file")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        if value.replace("-", "").replace("_", "").isalnum():
            return key, value
        raise InputError(f"--set {text}: {value!r} is no value; write it as in the file") from None


def changed(content: dict[str, Any], changes: Sequence[Change]) -> dict[str, Any]:
    """A study file's content with changes applied, the last one of a key counts.

    In a list of tables, such as `searches`, a table is named by its `name` or its place: `searches.long.parents`,
    `train.phases.0.epochs`. Raises InputError if there is no such table.
    """
    result = deepcopy(content)
    for key, value in changes:
        *tables, last = key.split(".")
        where: Any = result
        for place, name in enumerate(tables):
            before = ".".join(tables[: place + 1])
            where = _member(where, name, before) if isinstance(where, list) else where.setdefault(name, {})
            if not isinstance(where, dict | list):
                raise InputError(f"--set {key}: {before} is one value, not a table")
        if isinstance(where, list):
            raise InputError(f"--set {key}: {'.'.join(tables)} is a list; say what changes in {key}")
        where[last] = value
    return result


def _member(tables: list[Any], name: str, where: str) -> Any:
    for place, table in enumerate(tables):
        if isinstance(table, dict) and name in (table.get("name"), str(place)):
            return table
    known = [str(table.get("name", place)) for place, table in enumerate(tables) if isinstance(table, dict)]
    raise InputError(f"--set {where}: not one of {', '.join(known) or 'none'}")

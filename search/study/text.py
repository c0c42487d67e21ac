"""The text of a study file and of those it extends, as plain values; their meaning is not checked here."""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from pruner.errors import InputError

_LARGEST = 10_000_000
"""Most bytes that a study file may have."""
_STUDY_TRIAL = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)/([0-9]+)")
OF_SEARCHING = ("about", "trials", "timeout_hours", "target_score", "space", "iterative", "constraints", "sampler",
                "early_stopping", "variants", "predictor", "eval_images", "searches")  # fmt: skip
"""What a file searches and how long: the keys that a file which continues it does not take over."""
DENSE = "dense"
"""The dense network's name among parents."""


def study_and_trial(parent: str) -> tuple[str, int] | None:
    """The study and trial number in `STUDY/NUMBER`; None for any other text."""
    match = _STUDY_TRIAL.fullmatch(parent)
    return (match[1], int(match[2])) if match else None


def read_content(path: Path, *, extended: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A file's content merged into that of the file it extends or continues. `extended`: the files that led here.

    Raises InputError: one line with the file, and what would be right.
    """
    hint = (
        f"{extended[-1]} extends or continues it" if extended else "give a study file such as studies/quickstart.toml"
    )
    try:
        text = _text(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name, or not UTF-8
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: cannot be read ({reason}); {hint}") from None
    kind = "JSON" if path.suffix.lower() == ".json" else "TOML"
    try:
        data = json.loads(text, object_pairs_hook=_once) if kind == "JSON" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also of a number with thousands of digits
        raise InputError(f"{path}: not {kind}: {error}") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: holds no study")
    if "extends" in data and "continues" in data:
        raise InputError(f"{path}: give either extends or continues, not both")
    key = "continues" if "continues" in data else "extends"
    if (name := data.pop(key, None)) is None:
        return data
    if not isinstance(name, str) or "\0" in name:
        raise InputError(f"{path}: {key}: should be another study file's path, not {name!r}")
    base = path.parent / name
    if os.path.realpath(base) in [os.path.realpath(one) for one in (*extended, path)]:
        raise InputError(f"{path}: {key}: {name} {key} this file in turn")
    below = read_content(base, extended=(*extended, path))
    below.pop("name", None)  # the name belongs to the other study
    directory = below.pop("directory", "")  # only a part's file has it (`search.pipeline.relay`)
    _move_paths(below, Path(name).parent / str(directory))
    if key == "continues":  # what the other file searches stays its own, see `search.pipeline.parts`
        below = {key: value for key, value in below.items() if key not in OF_SEARCHING} | {"continues": name}
    return merged(below, data)


def merged(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`content` with `changes` merged into it, table by table."""
    result = dict(content)
    for key, value in changes.items():
        before = content.get(key, {})
        both = isinstance(value, dict) and isinstance(before, dict)
        result[key] = merged(before, value) if both else value
    return result


def _text(path: Path) -> str:
    """Read the text. Raises OSError or ValueError."""
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise ValueError("a device, not a file")
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError("too large for a study file")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("UTF-16 text: save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: byte {error.start + 1} is {content[error.start]:#04x}") from None
    if "\0" in text:
        raise ValueError("it has NUL bytes, as UTF-16 text without a byte order mark has: save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON table in which each key occurs once, as in TOML; `json` would silently keep the last of two."""
    table = dict(pairs)
    if len(table) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} occurs twice")
    return table


def _move_paths(content: dict[str, Any], folder: Path) -> None:
    """Prefix paths of parents, and of the file that is continued, with `folder`, where the file that names them is."""
    if isinstance(continued := content.get("continues"), str):
        content["continues"] = str(folder / continued)
    space = content.get("space")
    if isinstance(space, dict) and "parent" in space:
        many = space["parent"] if isinstance(space["parent"], list) else None
        space["parent"] = [_moved(one, folder) for one in many] if many else _moved(space["parent"], folder)
    variants, searches = content.get("variants"), content.get("searches")
    changes = [
        *(variants.values() if isinstance(variants, dict) else ()),
        *(searches if isinstance(searches, list) else ()),
    ]
    for change in changes:
        if isinstance(change, dict):
            _move_paths(change, folder)


def _moved(parent: Any, folder: Path) -> Any:
    if not isinstance(parent, str) or parent == DENSE or study_and_trial(parent) or parent.startswith("~"):
        return parent
    path = str(folder / parent)
    return f"./{path}" if study_and_trial(path) else path

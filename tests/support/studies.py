"""Studies for tests: a tiny one, and files that extend it or another one."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

Tables = dict[str, Any]
WriteStudy = Callable[..., Path]
"""The fixture `write_study`."""
Finished = tuple[Path, Path, dict[str, Any]]
"""The fixture `finished`."""

DATA: Tables = {
    "data": {"name": "digits", "resolution": 32},
    "dense": {
        "init": "random", "optimizer": "adamw", "learning_rate": 0.004, "epochs": 2, "images_per_epoch": 96,
        "batch_size": 32,
    },
    "latency": {"runs": 3},
}  # fmt: skip
"""Data and dense network of the tiny study, and of whatever goes on from it."""

TINY: Tables = {
    "trials": 4,
    "epoch_eval_images": 32,
    **DATA,
    "space": {
        "importance": ["l1", "l2", "bn_scale"],
        "learning_rate": {"low": 0.002, "high": 0.01, "log": True},
        "pruning_ratio": {
            "stage3": {"low": 0.1, "high": 0.8}, "stage6": {"low": 0.1, "high": 0.8}, "head": [0.25, 0.5],
        },
    },
    "train": {"optimizer": "adamw", "epochs": 2, "images_per_epoch": 64, "batch_size": 32},
}  # fmt: skip


def write_study(path: Path, changes: str = "", *, base: Tables = TINY, without: Sequence[str] = ()) -> Path:
    """Write a study file that extends `base`, less its keys `without` ("space.pruning_ratio"), by changes in TOML.

    With neither it is `base` itself; the file that is extended is written beside it, in a folder of its own.
    """
    extended = deepcopy(base)
    for key in without:
        *tables, last = key.split(".")
        table = extended
        for name in tables:
            table = table[name]
        del table[last]
    if not changes and not without:
        path.write_text(toml(extended))
        return path
    below = path.parent / "extended" / f"{path.stem}.toml"
    below.parent.mkdir(exist_ok=True)
    below.write_text(toml(extended))
    tomllib.loads(changes)  # a mistake in it is the test's
    path.write_text(f'extends = "{below.relative_to(path.parent)}"\n{changes}')
    return path


def toml(tables: Tables) -> str:
    """Of tables whose values and lists TOML writes as JSON does; keys keep their order, which draws follow."""
    values = "".join(f"{key} = {_inline(value)}\n" for key, value in tables.items() if not isinstance(value, dict))
    sections = (
        f"[{name}]\n" + "".join(f"{key} = {_inline(value)}\n" for key, value in table.items())
        for name, table in tables.items()
        if isinstance(table, dict)
    )
    return values + "".join(sections)


def _inline(value: Any) -> str:
    if not isinstance(value, dict):
        return json.dumps(value)
    return "{ " + ", ".join(f"{key} = {_inline(part)}" for key, part in value.items()) + " }"

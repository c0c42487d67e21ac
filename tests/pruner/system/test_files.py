"""How files are written."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from pruner.system.files import read_json, write_json, write_whole


def test_files_are_whole_or_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": 1})
    constraints = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, constraints[1]))  # as on a full disk: the write breaks off
    try:
        with pytest.raises(OSError, match=r"too large.*value\.json"):
            write_whole(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, constraints)
    assert read_json(path) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["value.json"]

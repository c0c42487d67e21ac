"""Packages that are installed only where somebody wants what they do."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from pruner.errors import InputError


def has(package: str) -> bool:
    """Is it installed?"""
    return importlib.util.find_spec(package) is not None


def need(package: str, what: str, extra: str) -> Any:
    """The package's module. Raises InputError, naming the extra of ours that installs it, if it is not there."""
    if not has(package):
        raise InputError(f"{what} needs {package}: pip install 'prune-search[{extra}]'")
    return importlib.import_module(package)

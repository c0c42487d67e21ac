"""Optional packages."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from pruner.errors import InputError


def has(package: str) -> bool:
    """Is the package installed?"""
    return importlib.util.find_spec(package) is not None


def need(package: str, what: str, extra: str) -> Any:
    """Import an optional package. Raises InputError, naming our extra that installs it, if it is missing."""
    if not has(package):
        raise InputError(f"{what} needs {package}: pip install 'prune-search[{extra}]'")
    return importlib.import_module(package)

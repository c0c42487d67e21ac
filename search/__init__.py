"""Search how far MobileNetV2 can be pruned: studies, trials, their storage, figures and command line.

This package knows nothing of channels: it samples recipes with Optuna, has `pruner` carry them out, and stores the
results.
"""

from __future__ import annotations

from typing import Any

__all__ = ["figures", "optuna_study", "records", "run"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'search' has no attribute {name!r}")
    from search import notebook

    return getattr(notebook, name)


def __dir__() -> list[str]:
    return __all__

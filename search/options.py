"""The options that say where a study's parts are and what of this machine it may use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """Where the dashboard listens, and to whom."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0: any that is free."""
    password_file: Path | None = None
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Of the commands that work on a study."""

    runs: Path = Path("runs")
    storage: str | None = None
    """A database's URL; None: SQLite in the study's folder."""
    artifacts: str | None = None
    """Where the machines share files: a folder, or s3://bucket/prefix."""
    dense: Path | None = None
    data_root: Path | None = None
    threads: int = 0
    """Of torch; 0: all cores."""
    device: str = "auto"
    grace_period: float = 60.0
    """Seconds without a beat after which a worker on another machine counts as dead."""


@dataclass(frozen=True, slots=True)
class Workers:
    """How many workers, and where."""

    count: int = 0
    """0: one a core, or GPU."""
    launcher: str = "local"
    """`local`, or `ray`: on the machines of a cluster."""
    address: str | None = None
    """The cluster's; None: RAY_ADDRESS, else a Ray of its own."""
    gpus: float = 0.0
    """Of the cluster's, for each worker."""

"""Options: where a study's parts are, and which resources of this machine it may use."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """Where the dashboard listens, and who may use it."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0: any free port."""
    password_file: Path | None = None
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of the commands that work on a study."""

    runs: Path = Path("runs")
    storage: str | None = None
    """A database's URL; None: SQLite in the study's folder."""
    artifacts: str | None = None
    """Where the machines share files: a folder, or s3://bucket/prefix."""
    dense: Path | None = None
    data_root: Path | None = None
    threads: int = 0
    """Cores that each worker uses; 0: all."""
    device: str = "auto"
    grace_period: float = 60.0
    """Seconds without a beat after which a worker on another machine is declared dead."""


@dataclass(frozen=True, slots=True)
class Workers:
    """How many workers run, and where."""

    count: int = 0
    """0: one per core, or per GPU."""
    launcher: str = "local"
    """`local`: on this machine; `ray`: on the machines of a cluster."""
    address: str | None = None
    """The cluster's address; None: RAY_ADDRESS, or else a new Ray instance."""
    gpus: float = 0.0
    """GPUs of the cluster for each worker."""

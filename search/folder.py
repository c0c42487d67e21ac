"""The files of a study and of a trial: their paths, their lock, and that each is whole or absent."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruner.errors import InputError
from pruner.files import read_json, write_json
from pruner.recipe import Recipe

if TYPE_CHECKING:  # torch takes seconds to import; `prune-search status` does without
    from pruner.channels import ChannelPlan
    from pruner.measure import Measurement


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the file `path` for this process, made if necessary: True if it was free, or has become so with `wait`.

    The kernel lets go when the process ends, however it does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """Where one study's files are: `runs/<study>/`."""

    path: Path

    @property
    def database(self) -> Path:
        return self.path / "study.db"

    @property
    def lock(self) -> Path:
        """Held (see `locked`) while a process opens the database or looks for its next trial."""
        return self.path / "study.lock"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def export(self) -> Path:
        return self.path / "export"

    @property
    def dense(self) -> Path:
        """Dense networks trained here, shared by the studies beside this one."""
        return self.path.parent / "dense"

    def scores(self, importance: str, key: str) -> Path:
        """Channel scores by that importance; `key` stands for the network and the images."""
        return self.path / "scores" / f"{importance}-{key}.pt"

    def trial(self, number: int) -> TrialFolder:
        return TrialFolder(self.path / "trials" / f"{number:04}")

    def create(self) -> None:
        """Make the folders. Raises InputError where that is not possible."""
        try:
            for folder in (self.path, self.path / "scores", self.path / "trials", self.export, self.dense):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be created ({error.strerror}); choose another folder with --runs"
            ) from error


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """One trial's files."""

    path: Path

    @property
    def model(self) -> Path:
        """The pruned, retrained network as it is handed in."""
        return self.path / "model.pth"

    @property
    def lock(self) -> Path:
        """Held (see `locked`) by the process that works on the trial."""
        return self.path / "lock"

    def log(self, text: str) -> None:
        """Add a line, with the time, to the trial's log."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now().isoformat(timespec='seconds')} {text}\n")

    def keep_recipe(self, recipe: Recipe) -> None:
        write_json(self.path / "recipe.json", recipe.as_json())

    def plan(self) -> ChannelPlan | None:
        from pruner.channels import ChannelPlan

        data = read_json(self.path / "plan.json")
        return ChannelPlan.from_json(data) if data else None

    def keep_plan(self, plan: ChannelPlan) -> ChannelPlan:
        write_json(self.path / "plan.json", plan.as_json())
        return plan

    def checkpoint(self) -> dict[str, Any] | None:
        """The last epoch's: `training` (for `fine_tune`) and `history` (a dict for every epoch so far)."""
        from pruner.checkpoint import load_state

        return load_state(self.path / "checkpoint.pt")

    def keep_checkpoint(self, training: dict[str, Any], history: list[dict[str, float]]) -> None:
        from pruner.checkpoint import save_state

        save_state(self.path / "checkpoint.pt", {"training": training, "history": history})

    def result(self) -> dict[str, Any] | None:
        """What `keep_result` wrote: `measurement`, `seconds` and `history`; None before the trial is finished."""
        from pruner.measure import Measurement

        data = read_json(self.path / "measurement.json")
        return {**data, "measurement": Measurement(**data["measurement"])} if data else None

    def keep_result(self, measurement: Measurement, seconds: dict[str, float], history: list[dict[str, float]]) -> None:
        """The last file of a trial to be written: once it is there, the trial is finished.

        `seconds`: `total` over all runs of the trial, of which `training` and `evaluation`. `history`: a dict for
        every epoch.
        """
        value = {"measurement": asdict(measurement), "seconds": seconds, "history": history}
        write_json(self.path / "measurement.json", value)

    def take_over(self, twin: TrialFolder) -> None:
        """Copy the results of a trial with the same plan and training; they are this trial's, too."""
        shutil.copyfile(twin.model, self.path / ".model.pth")
        (self.path / ".model.pth").replace(self.model)
        result = twin.result()
        assert result is not None  # a twin is a finished trial
        nothing = {"total": 0.0, "training": 0.0, "evaluation": 0.0}
        self.keep_result(result["measurement"], nothing, result["history"])

"""The files of a study and of a trial: their paths, their lock, and that each is whole or absent."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruner.errors import InputError
from pruner.recipe import Recipe
from pruner.system.files import add_line, checksum, json_bytes, read_json, write_json, write_whole
from search.cost import Work
from search.exit_status import read_only
from search.storage.filesystem import locked

if TYPE_CHECKING:  # torch takes seconds to import; `prune-search status` does without
    from torch import nn

    from pruner.channels.plan import ChannelPlan
    from pruner.measurement.latency import Latency
    from pruner.measurement.measure import Measurement


LOCK = "lock"
"""The name of the lock in a trial's folder."""
CHECKSUMS = "checksums.json"
"""In a finished trial's folder: length and CRC-32 of the other files, for `search.integrity.check`."""
CHECKED = ("recipe.json", "plan.json", "latency.json", "checkpoint.pt", "model.pth", "measurement.json")
"""The files of a trial that have checksums."""
SHARED_FILES = ".shared.json"
"""In a trial's folder: which of an artifact store's files were fetched or written here (`search.storage.artifacts`)."""


def leftovers(folder: Path) -> list[Path]:
    """What killed processes left there: neighbours that `pruner.system.files` writes before it renames them."""
    return [path for path in folder.glob(".*.*") if path.is_file() and path.name != SHARED_FILES]


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """Where one study's files are: `runs/<study>/`."""

    path: Path

    @property
    def database(self) -> Path:
        return self.path / "study.db"

    @property
    def lock(self) -> Path:
        """Held by a process (`search.storage.filesystem`) that opens an SQLite database or looks for its next trial."""
        return self.path / "study.lock"

    @property
    def study_file(self) -> Path:
        """Of a study that is a part of another's file: what it was begun as."""
        return self.path / "study.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def errors(self) -> Path:
        """What killed workers, in full."""
        return self.path / "errors.txt"

    @property
    def dense_figures(self) -> Path:
        """Which dense network the study prunes, and what that has; the database says it, too."""
        return self.path / "dense.json"

    @property
    def speeds(self) -> Path:
        """What was measured of how to train fastest (`search.trial.speed`)."""
        return self.path / "speeds.json"

    @property
    def export(self) -> Path:
        return self.path / "export"

    @property
    def dense(self) -> Path:
        """Dense networks trained here, shared by the studies beside this one."""
        return self.path.parent / "dense"

    @property
    def scores_folder(self) -> Path:
        return self.path / "scores"

    def scores(self, importance: str, key: str) -> Path:
        """Channel scores by that importance; `key` stands for the network and the images."""
        return self.scores_folder / f"{importance}-{key}.pt"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    def trial_folders(self) -> list[Path]:
        """Those that are there, by number."""
        return sorted(self.trials.iterdir()) if self.trials.exists() else []

    def begun_trials(self) -> dict[int, TrialFolder]:
        """Number -> folder, for the trials that have got as far as to keep their recipe here."""
        found = {int(path.name): self.trial(int(path.name)) for path in self.trial_folders() if path.name.isdigit()}
        return {number: home for number, home in found.items() if home.has_begun}

    def sweep(self) -> None:
        """Delete what killed processes left in trials' folders, where nobody is at work."""
        for home in self.trial_folders():
            if found := leftovers(home):
                with locked(home / LOCK, wait=False) as free:
                    for path in found if free else ():
                        path.unlink(missing_ok=True)

    def trial(self, number: int) -> TrialFolder:
        return TrialFolder(self.trials / f"{number:04}", self.path / "orphans")

    def create(self) -> None:
        """Make the folders. Raises InputError where that is not possible, or nothing can be written in them."""
        try:
            for folder in (self.path, self.scores_folder, self.trials, self.export, self.dense):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be created ({error.strerror}); choose another folder with --runs"
            ) from error
        if not os.access(self.path, os.W_OK):
            raise read_only(self.path)


def _same(kept: dict[str, Any], recipe: Recipe) -> bool:
    """Is it this recipe that was kept, maybe by a version that knew fewer settings?"""
    try:
        return Recipe.from_json(kept) == recipe
    except (KeyError, TypeError, AttributeError, InputError):
        return False


def _nobody(_path: Path) -> None:
    pass


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """One trial's files."""

    path: Path
    orphans: Path
    """Where files go that belong to no trial."""
    on_kept: Callable[[Path], None] = _nobody
    """Told of every file that was written, to copy it to where other machines find it."""

    @property
    def model(self) -> Path:
        """The pruned, retrained network as it is handed in."""
        return self.path / "model.pth"

    @property
    def trial_file(self) -> Path:
        """What the database knows of the trial (`search.storage.trial_file`)."""
        return self.path / "trial.json"

    @property
    def has_begun(self) -> bool:
        """Has the trial got as far as to keep its recipe here?"""
        return (self.path / "recipe.json").exists()

    @property
    def is_finished(self) -> bool:
        """Are the files there that a finished trial leaves?"""
        return self.model.exists() and (self.path / "measurement.json").exists()

    @property
    def lock(self) -> Path:
        """Held (see `search.storage.filesystem`) by the process that works on the trial."""
        return self.path / LOCK

    def log(self, text: str) -> None:
        """Add a line, with the time, to the trial's log."""
        add_line(self.path / "log.txt", f"{datetime.now().isoformat(timespec='seconds')} {text}")

    def begin(self, recipe: Recipe, dense: str) -> None:
        """Keep the recipe and the key of the dense network it is for.

        Files of another trial, left here by a study that was deleted but for its folder, are put aside first; what
        an earlier worker was writing when it was killed goes.
        """
        for path in leftovers(self.path):
            path.unlink()
        kept = self._read_json("recipe.json")
        if kept is not None and kept.get("dense") == dense and _same(kept, recipe):
            # The last worker may have been killed before other machines were told of what it had written.
            for name in sorted({*CHECKED, CHECKSUMS}, key=lambda name: name == "measurement.json"):
                if (self.path / name).exists():
                    self.on_kept(self.path / name)
            return
        self.put_aside()
        self._keep_json("recipe.json", {"dense": dense, **recipe.as_json()})

    def put_aside(self) -> None:
        """Move the files, but for the lock, to the orphans."""
        found = [path for path in self.path.iterdir() if path != self.lock]
        if not found:
            return
        aside = self.orphans / f"{self.path.name}-{datetime.now():%Y%m%d-%H%M%S-%f}"
        aside.mkdir(parents=True)
        for path in found:
            path.replace(aside / path.name)

    def _read_json(self, name: str) -> Any | None:
        try:
            return read_json(self.path / name)
        except ValueError:
            raise self._damaged(name) from None

    def _damaged(self, name: str) -> InputError:
        return InputError(f"{self.path / name}: damaged; see prune-search check")

    def _keep_json(self, name: str, value: Any) -> None:
        write_json(self.path / name, value)
        self.on_kept(self.path / name)

    def plan(self) -> ChannelPlan | None:
        from pruner.channels.plan import ChannelPlan

        data = self._read_json("plan.json")
        try:
            return ChannelPlan.from_json(data) if data else None
        except (KeyError, TypeError, AttributeError):
            raise self._damaged("plan.json") from None

    def keep_plan(self, plan: ChannelPlan) -> ChannelPlan:
        self._keep_json("plan.json", plan.as_json())
        return plan

    def latency(self) -> Latency | None:
        from pruner.measurement.latency import Latency

        data = self._read_json("latency.json")
        try:
            return Latency(**data) if data else None
        except TypeError:
            raise self._damaged("latency.json") from None

    def keep_latency(self, latency: Latency) -> Latency:
        self._keep_json("latency.json", asdict(latency))
        return latency

    def checkpoint(self) -> dict[str, Any] | None:
        """The last epoch's: `state` (for `pruner.compression`), `history` (a dict for every epoch so far), and `before`
        (None, or `accuracy` before training, the `seconds` it took to find, the `core_seconds` until then)."""
        from pruner.system.checkpoint import load_state

        kept = load_state(self.path / "checkpoint.pt")
        if kept is not None and "state" not in kept:  # of a version that knew no rounds
            kept = {"before": None, **kept, "state": {"training": kept["training"], "round": 0}}
        return kept

    def spent(self) -> Work:
        """What the trial took, if it is finished; if not, what its epochs on disk did."""
        if result := self.result():
            return Work(result["seconds"]["total"], result["seconds"].get("cores", result["seconds"]["total"]))
        history = (self.checkpoint() or {"history": []})["history"]
        return sum((Work(row["seconds"], row.get("core_seconds", row["seconds"])) for row in history), Work())

    def keep_checkpoint(
        self, state: dict[str, Any], history: list[dict[str, float]], before: dict[str, float] | None
    ) -> None:
        from pruner.system.checkpoint import save_state

        save_state(self.path / "checkpoint.pt", {"state": state, "history": history, "before": before})
        self.on_kept(self.path / "checkpoint.pt")

    def keep_model(self, model: nn.Module) -> None:
        """Write the network as it is handed in."""
        from pruner.exports.module import export_module

        export_module(model, self.model)
        self.on_kept(self.model)

    def result(self) -> dict[str, Any] | None:
        """What `keep_result` wrote: `measurement`, `seconds`, `history`, `before`; None if the trial isn't finished."""
        from pruner.measurement.measure import Measurement

        data = self._read_json("measurement.json")
        if data and isinstance(data.get("before"), float):  # of a version that counted no work
            data["before"] = {"accuracy": data["before"]}
        try:
            return {"before": None, **data, "measurement": Measurement(**data["measurement"])} if data else None
        except (KeyError, TypeError):
            raise self._damaged("measurement.json") from None

    def keep_result(
        self,
        measurement: Measurement,
        seconds: dict[str, float],
        history: list[dict[str, float]],
        before: dict[str, float] | None,
    ) -> None:
        """The last file of a trial to be written: once it is there, the trial is finished.

        `seconds`: `total` over all runs of the trial, of which `training` and `evaluation`, and `cores`, the total of
        all cores together. `history`: a dict for every epoch. `before`: as in `checkpoint`.
        """
        value = {"measurement": asdict(measurement), "seconds": seconds, "history": history, "before": before}
        sums = {"measurement.json": checksum(io.BytesIO(json_bytes(value)))}
        for path in (self.path / name for name in CHECKED if name not in sums):
            if path.exists():
                with path.open("rb", buffering=0) as file:
                    sums[path.name] = checksum(file)
        self._keep_json(CHECKSUMS, sums)
        self._keep_json("measurement.json", value)

    def take_over(self, twin: TrialFolder) -> None:
        """Copy the results of a trial with the same plan and training; they are this trial's, too."""
        write_whole(self.model, twin.model.read_bytes())
        self.on_kept(self.model)
        if latency := twin.latency():
            self.keep_latency(latency)
        result = twin.result()
        assert result is not None  # a twin is a finished trial
        nothing = {"total": 0.0, "cores": 0.0, "training": 0.0, "evaluation": 0.0}
        self.keep_result(result["measurement"], nothing, result["history"], result["before"])

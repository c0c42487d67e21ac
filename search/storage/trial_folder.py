"""The files of a trial, each whole or absent: their paths and their lock."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruner.errors import InputError
from pruner.recipe import Recipe
from pruner.system.files import add_line, checksum, json_bytes, read_json, write_json, write_whole
from search.cost import Cost
from search.results.metrics import metrics_csv

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
    """What killed processes left there: temporary files that `pruner.system.files` writes before it renames them."""
    return [path for path in folder.glob(".*.*") if path.is_file() and path.name != SHARED_FILES]


def _nobody(_path: Path) -> None:
    pass


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """One trial's files."""

    path: Path
    orphans: Path
    """The folder for files that belong to no trial."""
    on_saved: Callable[[Path], None] = _nobody
    """Called with every file that was written, to copy it to where other machines find it."""

    @property
    def model(self) -> Path:
        """The pruned, retrained network as it is handed in."""
        return self.path / "model.pth"

    @property
    def trial_file(self) -> Path:
        """The database's record of the trial (`search.storage.trial_file`)."""
        return self.path / "trial.json"

    @property
    def metrics(self) -> Path:
        """The epochs so far as a CSV table, for other programs."""
        return self.path / "metrics.csv"

    @property
    def has_begun(self) -> bool:
        """Is the trial's recipe stored here?"""
        return (self.path / "recipe.json").exists()

    @property
    def is_finished(self) -> bool:
        """Are the files of a finished trial here?"""
        return self.model.exists() and (self.path / "measurement.json").exists()

    @property
    def lock(self) -> Path:
        """Locked by the process that works on the trial (`search.filesystem`)."""
        return self.path / LOCK

    def log(self, text: str) -> None:
        """Add a line, with the time, to the trial's log."""
        add_line(self.path / "log.txt", f"{datetime.now().isoformat(timespec='seconds')} {text}")

    def begin(self, recipe: Recipe, parent: str) -> None:
        """Store the recipe and the hash of the network that it prunes.

        Files of another trial, left here by a study that was deleted except for its folder, are moved aside first.
        Files that a killed worker left half written are deleted.
        """
        for path in leftovers(self.path):
            path.unlink()
        asked = {"parent": parent, "recipe": recipe.as_json()}
        if self._read_json("recipe.json") == asked:
            # The last worker may have been killed before it copied its files to where other machines find them.
            for name in sorted({*CHECKED, CHECKSUMS}, key=lambda name: name == "measurement.json"):
                if (self.path / name).exists():
                    self.on_saved(self.path / name)
            return
        self.put_aside()
        self._save_json("recipe.json", asked)

    def put_aside(self) -> None:
        """Move the files, except the lock, to the orphans."""
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

    def _save_json(self, name: str, value: Any) -> None:
        write_json(self.path / name, value)
        self.on_saved(self.path / name)

    def plan(self) -> ChannelPlan | None:
        from pruner.channels.plan import ChannelPlan

        data = self._read_json("plan.json")
        try:
            return ChannelPlan.from_json(data) if data else None
        except (KeyError, TypeError, AttributeError):
            raise self._damaged("plan.json") from None

    def save_plan(self, plan: ChannelPlan) -> ChannelPlan:
        self._save_json("plan.json", plan.as_json())
        return plan

    def latency(self) -> Latency | None:
        from pruner.measurement.latency import Latency

        data = self._read_json("latency.json")
        try:
            return Latency(**data) if data else None
        except TypeError:
            raise self._damaged("latency.json") from None

    def save_latency(self, latency: Latency) -> Latency:
        self._save_json("latency.json", asdict(latency))
        return latency

    def checkpoint(self) -> dict[str, Any] | None:
        """The last epoch's: `state` (for `pruner.compression`), `history` (a dict for every epoch so far), and `before`
        (None, or `accuracy` before training and the `cpu_seconds` until then)."""
        from pruner.system.checkpoint import load_state

        return load_state(self.path / "checkpoint.pt")

    def spent(self) -> Cost:
        """The cost of a finished trial, or else of its epochs on disk."""
        if result := self.result():
            return Cost(**result["cost"])
        history = (self.checkpoint() or {"history": []})["history"]
        return sum((Cost(row["wall_seconds"], row["cpu_seconds"]) for row in history), Cost())

    def save_checkpoint(
        self, state: dict[str, Any], history: list[dict[str, float]], before: dict[str, float] | None
    ) -> None:
        from pruner.system.checkpoint import save_state

        save_state(self.path / "checkpoint.pt", {"state": state, "history": history, "before": before})
        self.on_saved(self.path / "checkpoint.pt")
        write_whole(self.metrics, metrics_csv(history, before).encode())

    def save_model(self, model: nn.Module) -> None:
        """Write the network as it is handed in."""
        from pruner.exports.module import export_module

        export_module(model, self.model)
        self.on_saved(self.model)

    def result(self) -> dict[str, Any] | None:
        """What `save_result` wrote: `measurement`, `cost`, `history`, `before`; None if the trial isn't finished."""
        from pruner.measurement.measure import Measurement

        data = self._read_json("measurement.json")
        try:
            return {**data, "measurement": Measurement(**data["measurement"])} if data else None
        except (KeyError, TypeError):
            raise self._damaged("measurement.json") from None

    def save_result(
        self,
        measurement: Measurement,
        cost: Cost,
        history: list[dict[str, float]],
        before: dict[str, float] | None,
    ) -> None:
        """Write the last file of a trial: once it exists, the trial is finished.

        `cost`: over all runs of the trial. `history`: a dict for every epoch. `before`: as in `checkpoint`.
        """
        spent = {name: round(seconds, 3) for name, seconds in asdict(cost).items()}
        value = {"measurement": asdict(measurement), "cost": spent, "history": history, "before": before}
        sums = {"measurement.json": checksum(io.BytesIO(json_bytes(value)))}
        for path in (self.path / name for name in CHECKED if name not in sums):
            if path.exists():
                with path.open("rb", buffering=0) as file:
                    sums[path.name] = checksum(file)
        write_whole(self.metrics, metrics_csv(history, before).encode())
        self._save_json(CHECKSUMS, sums)
        self._save_json("measurement.json", value)

    def copy_from(self, duplicate: TrialFolder) -> None:
        """Copy the results of a trial with the same plan and training, which are also this trial's."""
        write_whole(self.model, duplicate.model.read_bytes())
        self.on_saved(self.model)
        if latency := duplicate.latency():
            self.save_latency(latency)
        result = duplicate.result()
        assert result is not None  # a duplicate is a finished trial
        self.save_result(result["measurement"], Cost(), result["history"], result["before"])

"""The files of a study: their paths, and the creation of its folders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pruner.errors import InputError
from search.exit_status import read_only
from search.filesystem import locked
from search.storage.trial_folder import LOCK, TrialFolder, leftovers


@dataclass(frozen=True, slots=True)
class StudyFolder:
    """The paths of one study's files: `runs/<study>/`."""

    path: Path

    @property
    def database(self) -> Path:
        return self.path / "study.db"

    @property
    def lock(self) -> Path:
        """Locked, see `search.filesystem`, to open an SQLite database or to look for the next trial."""
        return self.path / "study.lock"

    @property
    def study_file(self) -> Path:
        """For a study that is a part of a study file: the content that it was begun with."""
        return self.path / "study.json"

    @property
    def result(self) -> Path:
        """For a part that ended its study file: the name of the part whose network was handed over."""
        return self.path / "result.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def errors(self) -> Path:
        """The tracebacks of workers that died."""
        return self.path / "errors.txt"

    @property
    def dense_figures(self) -> Path:
        """Which dense network the study prunes, and its figures; the database has them, too."""
        return self.path / "dense.json"

    @property
    def export(self) -> Path:
        return self.path / "export"

    @property
    def dense(self) -> Path:
        """Dense networks trained here, shared by the studies beside this one."""
        return self.path.parent / "dense"

    @property
    def data(self) -> Path:
        """Decoded images, shared by the studies beside this one."""
        return self.path.parent / "data"

    @property
    def scores_folder(self) -> Path:
        return self.path / "scores"

    def scores(self, importance: str, key: str) -> Path:
        """Channel scores by that importance; `key` is the hash of the network and the images."""
        return self.scores_folder / f"{importance}-{key}.pt"

    @property
    def trials(self) -> Path:
        return self.path / "trials"

    def trial_folders(self) -> list[Path]:
        """The existing trial folders, by number."""
        return sorted(self.trials.iterdir()) if self.trials.exists() else []

    def begun_trials(self) -> dict[int, TrialFolder]:
        """Number -> folder, for the trials whose recipe is stored here."""
        found = {int(path.name): self.trial(int(path.name)) for path in self.trial_folders() if path.name.isdigit()}
        return {number: home for number, home in found.items() if home.has_begun}

    def sweep(self) -> None:
        """Delete what killed processes left in the folders of trials that no worker has locked."""
        for home in self.trial_folders():
            if found := leftovers(home):
                with locked(home / LOCK, wait=False) as free:
                    for path in found if free else ():
                        path.unlink(missing_ok=True)

    def trial(self, number: int) -> TrialFolder:
        return TrialFolder(self.trials / f"{number:04}", self.path / "orphans")

    def create(self) -> None:
        """Make the folders. Raises InputError if that fails, or if nothing can be written in them."""
        try:
            for folder in (self.path, self.scores_folder, self.trials, self.export, self.dense):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be created ({error.strerror}); choose another folder with --runs"
            ) from error
        if not os.access(self.path, os.W_OK):
            raise read_only(self.path)

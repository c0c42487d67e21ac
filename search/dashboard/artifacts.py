"""Serve trials' files as the dashboard's artifacts, from where they are, without copying them.

An artifact's id is `<study>-<trial>-<file>` in hexadecimal digits, because the dashboard accepts no others.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import BinaryIO

from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import FrozenTrial

from search.report.figures import curves_figure
from search.report.page import network_figures, page
from search.results.records import record
from search.storage.artifacts import Shared
from search.storage.folder import StudyFolder
from search.storage.studies import dense_of

FILES = ("model.pth", "plan.json", "measurement.json", "figures.html")
"""The artifacts of a finished trial; the last is drawn on request."""
_ID = re.compile(r"([0-9a-f]{8})-([0-9a-f]{8})-([0-9a-f]{4})")


def artifact_id(study_id: int, trial: int, file: str) -> str:
    """The id of one of FILES."""
    return f"{study_id:08x}-{trial:08x}-{FILES.index(file):04x}"


@dataclass(frozen=True, slots=True)
class DashboardArtifacts:
    """An artifact store (see `optuna.artifacts`) over a study's files; uploads are stored separately."""

    shared: Shared
    folder: StudyFolder
    uploads: FileSystemArtifactStore

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Open an artifact. Raises ArtifactNotFound."""
        match = _ID.fullmatch(artifact_id)
        if match is None:
            return self.uploads.open_reader(artifact_id)
        study_id, number, index = (int(part, 16) for part in match.groups())
        study = self.shared.store.study
        trials = study.get_trials(deepcopy=False) if study_id == study._study_id else []
        if number >= len(trials) or index >= len(FILES):
            raise ArtifactNotFound("not found")
        if FILES[index] == "figures.html":
            return io.BytesIO(self._figures(trials[number]).encode())
        files = self.shared.finished_folder(self.folder, trials[number])
        if files is None or not (files.path / FILES[index]).exists():
            raise ArtifactNotFound("not found")
        return (files.path / FILES[index]).open("rb")

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Store an upload."""
        self.uploads.write(artifact_id, content_body)

    def remove(self, artifact_id: str) -> None:
        """Delete an upload; a trial's own files are never deleted."""
        if _ID.fullmatch(artifact_id) is None:
            self.uploads.remove(artifact_id)

    def _figures(self, trial: FrozenTrial) -> str:
        shown = record(trial)
        figures = {"curves": curves_figure([shown])} if shown.curve else {}
        figures |= network_figures(shown, dense_of(self.shared.store.study))
        return page(f"Trial {shown.number}", [], figures)

"""Notes, figures and artifacts in the study's database, where the dashboard finds them, brought up to date."""

from __future__ import annotations

import contextlib
import json
import mimetypes
import threading

import optuna
from optuna.study import Study
from optuna.trial import Trial
from optuna_dashboard import get_note, save_note, save_plotly_graph_object
from sqlalchemy.exc import SQLAlchemyError

from search.report import study_figures
from search.results import Record, best, record
from search.storage import dense_of
from search.study_file import StudySpec
from search.web.notes import study_note, trial_note, with_tail
from search.web.shelf import FILES, artifact_id

_EVERY_S = 2.0
_SHOWN = ("pareto", "map-sizes", "layers", "widths")
"""The figures that the study carries; the report has them all."""


class Annotator(threading.Thread):
    """Follows a study; writes only when a trial has ended."""

    def __init__(self, study: Study, spec: StudySpec, study_file: str) -> None:
        """`study`: on a storage that several threads may use."""
        super().__init__(name="annotator", daemon=True)
        self._study, self._spec, self._study_file = study, spec, study_file
        self._noted: dict[int, tuple[Record, bool]] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        last = False
        while True:
            with contextlib.suppress(SQLAlchemyError, optuna.exceptions.StorageInternalError):  # away; it comes back
                self.refresh()
            if last:
                return
            last = self._ended.wait(_EVERY_S)  # and once more, for what ended meanwhile

    def end(self) -> None:
        """Stop, after what is being written."""
        self._ended.set()
        self.join(timeout=10)

    def refresh(self) -> None:
        """Bring everything up to date."""
        study = self._study
        trials = {trial.number: trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}
        found = [record(trial) for trial in trials.values()]
        top, dense = best(found), dense_of(study)
        changed = [r for r in found if self._noted.get(r.number) != (r, r == top)]
        for r in changed:
            trial = trials[r.number]
            if r.state == "done":
                _name_artifacts(study, trial._trial_id, r.number)
            _write_note(Trial(study, trial._trial_id), trial_note(r, dense, is_best=r == top))
            self._noted[r.number] = (r, r == top)
        if not changed and self._noted:
            return
        _write_note(study, study_note(self._spec, found, dense, self._study_file))
        figures = study_figures(self._spec, found, {}, dense)
        for name in _SHOWN:
            if name in figures:
                figures[name].update_layout(height=None)  # as high as the dashboard's boxes
                save_plotly_graph_object(study, figures[name], graph_object_id=name)


def _write_note(where: Study | Trial, note: str) -> None:
    before = get_note(where)
    text = with_tail(note, before)
    if text != before:
        save_note(where, text)


def _name_artifacts(study: Study, trial_id: int, number: int) -> None:
    """Say which files a finished trial has. Of such a trial only the study's attributes can still be written."""
    present = study._storage.get_study_system_attrs(study._study_id)
    for file in FILES:
        name = artifact_id(study._study_id, number, file)
        key = f"dashboard:artifacts:{trial_id}:{name}"
        if key not in present:
            kind, encoding = mimetypes.guess_type(file)
            about = {
                "artifact_id": name,
                "filename": file,
                "mimetype": kind or "application/octet-stream",
                "encoding": encoding,
            }
            study._storage.set_study_system_attr(study._study_id, key, json.dumps(about))

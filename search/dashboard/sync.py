"""Keep the notes, figures and artifacts that the dashboard shows up to date in the study's database."""

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

from pruner.errors import InputError
from search.dashboard.artifacts import FILES, artifact_id
from search.dashboard.notes import study_note, trial_note, with_tail
from search.report.page import network_figures, trade_off_figure
from search.results.records import Record, best, record
from search.storage.studies import dense_of
from search.study.spec import StudySpec

_EVERY_S = 2.0


class Sync(threading.Thread):
    """A thread that follows a study and writes only when a trial has ended."""

    def __init__(self, study: Study, spec: StudySpec, study_file: str) -> None:
        """`study`: must be on a storage that several threads may use."""
        super().__init__(name="sync", daemon=True)
        self._study, self._spec, self._study_file = study, spec, study_file
        self._noted: dict[int, tuple[Record, bool]] = {}
        self._begun = False
        self._ended = threading.Event()

    def run(self) -> None:
        last = False
        while True:
            # The database may be unreachable for a while; if it is damaged, the study's workers report that.
            with contextlib.suppress(SQLAlchemyError, optuna.exceptions.StorageInternalError, InputError):
                self.refresh()
            if last:
                return
            last = self._ended.wait(_EVERY_S)  # refresh once more, for trials that ended meanwhile

    def end(self) -> None:
        """Stop, waiting half a second for writes in progress; the next dashboard writes what is missing."""
        self._ended.set()
        self.join(timeout=0.5)

    def refresh(self) -> None:
        """Bring everything up to date, the best and the newest trials first."""
        study, dense = self._study, dense_of(self._study)
        trials = {trial.number: trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()}
        found = [record(trial) for trial in trials.values()]
        top = best(found)
        changed = [r for r in found if self._noted.get(r.number) != (r, r == top)]
        if self._begun and not changed:
            return
        page = _Page(study)
        page.write_note(None, study_note(self._spec, found, dense, self._study_file))
        figures = {"pareto": trade_off_figure(self._spec, found, dense)} | network_figures(top, dense)
        for name, figure in figures.items():
            figure.update_layout(height=None)  # fill the dashboard's boxes
            save_plotly_graph_object(study, figure, graph_object_id=name)
        self._begun = True
        for r in sorted(changed, key=lambda r: (r != top, -r.number)):
            trial_id = trials[r.number]._trial_id
            if r.state == "done":
                page.name_artifacts(trial_id, r.number)
            page.write_note(trial_id, trial_note(r, dense, is_best=r == top))
            self._noted[r.number] = (r, r == top)


class _Page:
    """A study's notes and artifacts in the form that the dashboard reads; only changes are written.

    Finished trials accept no further attributes, so a trial's notes and artifacts are attributes of the study.
    """

    def __init__(self, study: Study) -> None:
        self._study, self._storage, self._study_id = study, study._storage, study._study_id
        self._present = self._storage.get_study_system_attrs(self._study_id)

    def write_note(self, trial_id: int | None, note: str) -> None:
        """Write the note of a trial, or of the study if `trial_id` is None."""
        about = self._study if trial_id is None else Trial(self._study, trial_id)
        before = get_note(about)
        text = with_tail(note, before)
        if text != before:
            save_note(about, text)

    def name_artifacts(self, trial_id: int, number: int) -> None:
        """List a trial's files as its artifacts."""
        for file in FILES:
            name = artifact_id(self._study_id, number, file)
            kind = mimetypes.guess_type(file)[0] or "application/octet-stream"
            about = {"artifact_id": name, "filename": file, "mimetype": kind, "encoding": None}
            key, value = f"dashboard:artifacts:{trial_id}:{name}", json.dumps(about)
            if self._present.get(key) != value:
                self._storage.set_study_system_attr(self._study_id, key, value)

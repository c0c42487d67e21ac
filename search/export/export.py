"""Export a study's results: the report, and a trial's network in several formats, with its card."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from pruner.data.datasets import Dataset
from pruner.errors import InputError
from pruner.exports.formats import INT8, Exported, export, require
from pruner.exports.int8 import find_layers
from pruner.measurement.latency import Backend
from pruner.network.loading import load_network
from pruner.system.files import read_json, write_json, write_whole
from pruner.system.hashes import weights_hash
from search.exit_status import ExitStatus, Failed
from search.export.card import card_markdown, make_card
from search.export.grade import Grade, grade
from search.export.int8 import quantize
from search.pipeline.relay import set_options
from search.report.page import write_report
from search.results.ending import ending
from search.results.figures import Figures
from search.results.records import Record, best, finished, record, records, summary
from search.storage.artifacts import Shared
from search.storage.folder import StudyFolder
from search.storage.studies import dense_of
from search.storage.trial_folder import TrialFolder
from search.study.spec import StudySpec
from search.terminal.progress import Progress
from search.trial.context import measure_latency


@dataclass(frozen=True, slots=True)
class Export:
    """An exported network."""

    trial: int
    files: list[Exported]
    card: dict[str, Any]
    card_file: Path
    """The card as JSON; the Markdown is beside it."""


def finish(
    shared: Shared, study_file: Path, spec: StudySpec, folder: StudyFolder, data: Dataset, progress: Progress
) -> dict[str, Any]:
    """Write the report, export the best network and grade it, once, on the test images.

    Returns the study's summary and, if there is a best trial, `file` (the network), `test` (its grade) and `card`.
    """
    study = shared.store.study
    write_report(study, spec, folder.report)
    result = summary(records(study))
    if result["best"] is None:
        return result
    done = export_trial(shared, study_file, spec, folder, data=data, progress=progress)
    return {**result, "file": str(done.files[0].file), "test": done.card["test"], "card": str(done.card_file)}


def export_trial(
    shared: Shared,
    study_file: Path,
    spec: StudySpec,
    folder: StudyFolder,
    *,
    number: int | None = None,
    formats: Sequence[str] = ("pth",),
    out: Path | None = None,
    keep_float: Sequence[str] = (),
    data: Dataset | None,
    to_grade: bool = True,
    progress: Progress,
) -> Export:
    """Write a finished trial's network and its card into the folder `out`. `number`: the trial (default: the best).

    Beside them is `.labels.txt`, the classes' names in the order of the outputs, a line each.

    `keep_float`: what the format onnx-int8 leaves in float. `data`: None only if nothing is to be graded and made int8.
    `to_grade`: whether the network is graded on the test images, unless it is graded already.

    Raises InputError if there is no such trial, its files are out of reach, or a format's package is missing.
    """
    for format in formats:
        require(format)
    find_layers(keep_float)
    trial = find_trial(shared.store.study, spec, number)
    files = trial_files(shared, spec, folder, trial)
    out = out or folder.export
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: is not a folder that can be written to ({error.strerror})") from error
    stem, model = out / f"mobilenet-{trial.number}", load_network(files.model)
    plan = files.plan()
    assert plan is not None  # a finished trial has one
    written = []
    plain = [format for format in dict.fromkeys(formats) if format != INT8]
    with progress.task(f"exporting trial {trial.number}", len(plain), unit="formats") as bar:
        for format in plain:
            bar.say(f"exporting {format}")
            written.append(export(model, stem, format, plan=plan.as_json(), resolution=spec.data.resolution))
            bar.advance()
    dense = dense_of(shared.store.study)
    names = data.class_names if data else dense.class_names if dense else ()
    if names:
        write_whole(stem.with_suffix(".labels.txt"), "".join(f"{name}\n" for name in names).encode())
    card_file, key = stem.with_suffix(".json"), weights_hash(model)
    before = read_json(card_file) or {}
    before = before if before.get("weights") == key else {}
    test = _kept_grade(before)
    if test is None and to_grade and data is not None:
        test = grade(
            files.model, data, spec.graded_by, spec.data.resolution, data.test.images.device, progress,
            count_resolution=spec.prune.count_resolution,
        )  # fmt: skip
    about, int8 = record(trial), before.get("int8")
    int8 = int8 if int8 and (out / int8["file"]).exists() else None
    if INT8 in formats:
        assert data is not None and about.accuracy is not None
        exported, made = quantize(
            model, stem, spec, data, keep_float=keep_float, float_holdout=about.accuracy,
            float_test=test.accuracy if test and to_grade else None, progress=progress,
        )  # fmt: skip
        written.append(exported)
        int8 = asdict(made)
    backends: list[Backend] = ["torch", "onnxruntime"] if "onnx" in formats else ["torch"]
    kept = [Exported(**{**file, "file": out / file["file"]}) for file in before.get("files", ())]
    card = make_card(
        spec=spec,
        record=about,
        recipe=json.loads((files.path / "recipe.json").read_text())["recipe"],
        dense=dense,
        class_names=names,
        weights=key,
        test=test,
        latencies=[measure_latency(model, spec, backend) for backend in backends],
        int8=int8,
        files=written + [file for file in kept if file.format not in formats and file.file.exists()],
        command=f"prune-search run {study_file}{set_options(study_file, folder.path.parent)} && "
        f"prune-search export {study_file} --trial {trial.number}",
    )
    write_json(card_file, card)
    write_whole(stem.with_suffix(".md"), card_markdown(card).encode())
    return Export(trial.number, written, card, card_file)


def _kept_grade(card: dict[str, Any]) -> Grade | None:
    try:
        return Grade(**card["test"])
    except (KeyError, TypeError):  # not graded, or graded by a version with fewer figures
        return None


def find_trial(study: Study, spec: StudySpec, number: int | None) -> FrozenTrial:
    """The finished trial of that number (default: the best one). Raises InputError if there is none."""
    found = records(study)
    if number is None:
        top = best(found)
        if top is None:
            raise nothing_to_export(spec, found)
        number = top.number
    elif number not in {r.number for r in finished(found)}:
        raise InputError(f"study {spec.name}: trial {number} is not finished; see prune-search status")
    return next(trial for trial in study.get_trials(deepcopy=False) if trial.number == number)


def nothing_to_export(spec: StudySpec, found: Sequence[Record]) -> InputError:
    """The error for a study without a best trial; its exit status is that of the study's ending."""
    without = ending(found)
    assert without is not None
    status = without.status or ExitStatus.BAD_INPUT  # a running study has no ending yet
    return Failed(f"study {spec.name}: nothing to export. {without.text}", status)


def trial_files(shared: Shared, spec: StudySpec, folder: StudyFolder, trial: FrozenTrial) -> TrialFolder:
    """A finished trial's files, fetched if they are on another machine. Raises InputError if they are out of reach."""
    files = shared.finished_folder(folder, trial)
    if files is None:
        raise InputError(
            f"study {spec.name}: the files of trial {trial.number} are not here (its worker was "
            f"{Figures.load(trial).worker or 'unknown'}); give that machine's --runs, or the study's --artifacts"
        )
    return files

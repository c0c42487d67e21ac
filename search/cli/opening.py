"""Shared by several commands: open a study, print a grade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from search.pipeline.relay import latest, parts_of, studies_of
from search.pipeline.result import result_of
from search.storage.artifacts import Shared, artifact_store
from search.storage.folder import StudyFolder
from search.storage.studies import load_study
from search.study.score import masked
from search.study.spec import StudySpec


def open_shared(spec: StudySpec, folder: StudyFolder, storage: str | None, artifacts: str | None) -> Shared:
    """Open a study that has begun, for reading, with its files. Raises InputError if there is none."""
    return Shared(load_study(spec, folder, storage), *artifact_store(artifacts))


def open_files(study: Path, runs: Path) -> tuple[StudySpec, StudyFolder]:
    """The study and its folder; for a file with several parts, those of the part that was begun last."""
    return latest(parts_of(study, runs)[0], runs)


def open_result(study: Path, runs: Path) -> tuple[StudySpec, StudyFolder]:
    """The study and its folder; for a file with several parts, those of the part whose best network it hands over."""
    return result_of(studies_of(parts_of(study, runs)[0], runs))


def print_grade(graded: dict[str, Any]) -> None:
    """Print a network's grade in one line, with a second line if masks left zeros."""
    images = "Test" if graded["graded_on"] == "test" else "Validation"
    seen, score = "", ""
    if graded["score"] is not None:  # the course's
        seen = f" ({graded['accuracy_drop_last']:.2%} as the grader's loader sees them)"
        score = f", score {graded['score']:.2f}"
    click.echo(
        f"{images} images: {graded['accuracy']:.2%} right{seen}, {graded['mflops']:.3f} MFLOPs{score}; "
        f"{graded['params']:,} parameters, {graded['size_bytes']:,} bytes"
    )
    left, params = graded["nonzero_params"], graded["params"]
    if masked(left, params):
        click.echo(
            f"Masks: {left:,} parameters are not zero ({left / params:.1%}), {4 * left:,} bytes at 32 bits; the file "
            f"compressed: {graded['compressed_bytes']:,} bytes; the operations stay as they are"
        )

"""The command `predictor`: how well untrained evaluation predicts the accuracy after training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import plotly.graph_objects as go

from pruner.errors import InputError
from pruner.system.files import write_out
from search.cli.options import json_option, runs_option, storage_option, study_argument
from search.pipeline.finalists import finalists, observations
from search.pipeline.parts import Part
from search.pipeline.relay import begun, parts_of
from search.report.page import page
from search.report.predictor import finalists_figure, predictor_figure
from search.results.records import predicted_text, records
from search.storage.folder import StudyFolder
from search.storage.studies import load_study
from search.study.predictor import FEWEST, Predictor, rank_agreement


@click.command()
@study_argument
@click.option("--out", type=click.Path(path_type=Path), help="Also write the figure to this HTML file.")
@runs_option
@storage_option
@json_option
def predictor(study: Path, out: Path | None, runs: Path, storage: str | None, as_json: bool) -> None:
    """Check how well the untrained evaluation of STUDY's networks predicts their accuracy after training.

    \b
    For a study whose trials are fully trained: do the untrained accuracies rank the networks correctly (Spearman's
    rho among those of similar MFLOPs), and how far is each from what the others predict? The line
    `observations = ...` is for the section [predictor] of a search that trains nothing.
    For a study with several [[searches]]: what was predicted for each finalist, and what it reached.
    """
    parts, _ = parts_of(study, runs)
    result, lines, figure = _of_study(parts[0], runs, storage) if len(parts) == 1 else _of_parts(parts, runs, storage)
    click.echo(json.dumps(result) if as_json else "\n".join(lines))
    if out is not None:
        write_out(out, page(f"Predictions for {parts[-1].whole}", lines, {"predictor": figure}).encode())
        click.echo(f"Figure: {out}", err=True)


Told = tuple[dict[str, Any], list[str], go.Figure]


def _of_study(part: Part, runs: Path, storage: str | None) -> Told:

    spec = part.study()
    networks = observations(records(load_study(spec, StudyFolder(runs / spec.name), storage).study))
    if len(networks) < FEWEST:
        raise InputError(
            f"study {spec.name}: {len(networks)} trials were evaluated untrained and then fully trained; a "
            f"predictor needs {FEWEST} or more"
        )
    predictions = Predictor(observations=tuple(networks)).left_out()
    bands = rank_agreement(networks)
    typical, agreement = _agreement(
        [(p.accuracy - final, p.std) for p, (*_, final) in zip(predictions, networks, strict=True)]
    )
    lines = [f"{len(networks)} networks, evaluated untrained and fully trained."]
    lines += [
        f"Around {middle:.1f} MFLOPs, {count} networks: Spearman's rho {rho:.2f}." for middle, count, rho in bands
    ]
    lines.append(f"Predicted by the others, a network is {agreement}")
    rows = ", ".join(f"[{mflops:.2f}, {seen:.4f}, {final:.4f}]" for mflops, seen, final in networks)
    lines.append(f"observations = [{rows}]")
    result = {
        "observations": networks,
        "predicted": [asdict(p) for p in predictions],
        "bands": [{"mflops": middle, "networks": count, "rho": rho} for middle, count, rho in bands],
        "error": typical,
    }
    return result, lines, predictor_figure(networks, predictions)


def _of_parts(parts: list[Part], runs: Path, storage: str | None) -> Told:

    found = [
        (part, spec, records(load_study(spec, folder, storage).study)) for part, spec, folder in begun(parts, runs)
    ]
    ways = finalists(found)
    if not ways:
        raise InputError(f"study {parts[-1].whole}: no finalist has been trained yet; continue with prune-search run")
    lines, rows = [], []
    for way in ways:
        told = []
        for stop in way:
            r = stop.record
            said = predicted_text(r) if r.predicted is not None else f"{r.accuracy:.2%} reached"
            told.append(f"{stop.part} {said}")
            keys = ("number", "mflops", "accuracy", "predicted", "predicted_std", "score")
            rows.append({"finalist": way[0].record.number, "part": stop.part, **{key: getattr(r, key) for key in keys}})
        lines.append(f"trial {way[0].record.number:3} ({way[0].record.mflops:.2f} MFLOPs): {'; '.join(told)}")
    errors = [
        (after.record.accuracy - before.record.predicted, before.record.predicted_std or 0.0)
        for before, after, *_ in ways
        if before.record.predicted is not None and after.record.accuracy is not None
    ]
    result: dict[str, Any] = {"finalists": rows}
    if errors:
        result["error"], agreement = _agreement(errors)
        lines.append(f"After its first training, a network is {agreement}")
    return result, lines, finalists_figure(ways)


def _agreement(errors: Sequence[tuple[float, float]]) -> tuple[float, str]:
    """Of errors with the standard deviation expected of each: their root mean square, and what to say of them."""
    typical = (sum(error**2 for error, _ in errors) / len(errors)) ** 0.5
    inside = sum(abs(error) <= 2 * std for error, std in errors)
    return typical, (
        f"{100 * typical:.2f} points off (root mean square); {inside} of {len(errors)} lie within two standard "
        "deviations."
    )

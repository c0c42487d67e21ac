"""The command `forecast`: how well cheap looks foretell what networks reach."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from search.cli.options import json_option, runs_option, storage_option, study_argument

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from search.pipeline.parts import Part


@click.command()
@study_argument
@click.option("--out", type=click.Path(path_type=Path), help="Also draw it, as this HTML file.")
@runs_option
@storage_option
@json_option
def forecast(study: Path, out: Path | None, runs: Path, storage: str | None, as_json: bool) -> None:
    """Check how well the first look at STUDY's networks foretells what training makes of them.

    \b
    Of a study whose trials are trained through: do the accuracies before training rank the networks right (Spearman's
    rho among those of similar MFLOPs), and how far is each from what the others foretell? The line `known = ...` is for
    the section [forecast] of a search that only looks.
    Of a study with [finalists]: what was foreseen of each finalist, and what it reached.
    """
    from pruner.system.files import write_out
    from search.pipeline.parts import read_parts
    from search.report.page import page

    parts = read_parts(study)
    result, lines, figure = _of_study(parts[0], runs, storage) if len(parts) == 1 else _of_parts(parts, runs, storage)
    click.echo(json.dumps(result) if as_json else "\n".join(lines))
    if out is not None:
        write_out(out, page(f"Forecasts of {parts[0].whole}", lines, {"forecast": figure}).encode())
        click.echo(f"Figure: {out}", err=True)


Told = tuple[dict[str, Any], list[str], "go.Figure"]


def _of_study(part: Part, runs: Path, storage: str | None) -> Told:
    from pruner.errors import InputError
    from search.pipeline.finalists import known
    from search.report.predictor import forecast_figure
    from search.results.records import records
    from search.storage.folder import StudyFolder
    from search.storage.studies import load_study
    from search.study.predictor import FEWEST, Forecast, rank_agreement

    spec = part.study()
    networks = known(records(load_study(spec, StudyFolder(runs / spec.name), storage).study))
    if len(networks) < FEWEST:
        raise InputError(
            f"study {spec.name}: {len(networks)} trials were looked at before training and trained through; a forecast "
            f"needs {FEWEST} or more"
        )
    predictions = Forecast(known=tuple(networks)).left_out()
    bands = rank_agreement(networks)
    errors = [p.accuracy - final for p, (*_, final) in zip(predictions, networks, strict=True)]
    typical = (sum(error**2 for error in errors) / len(errors)) ** 0.5
    inside = sum(abs(error) <= 2 * p.std for error, p in zip(errors, predictions, strict=True))
    lines = [f"{len(networks)} networks, looked at before training and trained through."]
    lines += [
        f"Around {middle:.1f} MFLOPs, {count} networks: Spearman's rho {rho:.2f}." for middle, count, rho in bands
    ]
    lines.append(
        f"Foretold by the others, a network is {100 * typical:.2f} points off (root mean square); {inside} of "
        f"{len(errors)} lie within two standard deviations."
    )
    rows = ", ".join(f"[{mflops:.2f}, {seen:.4f}, {final:.4f}]" for mflops, seen, final in networks)
    lines.append(f"known = [{rows}]")
    result = {
        "known": networks,
        "foretold": [asdict(p) for p in predictions],
        "bands": [{"mflops": middle, "networks": count, "rho": rho} for middle, count, rho in bands],
        "error": typical,
    }
    return result, lines, forecast_figure(networks, predictions)


def _of_parts(parts: list[Part], runs: Path, storage: str | None) -> Told:
    from pruner.errors import InputError
    from search.pipeline.finalists import finalists
    from search.pipeline.relay import begun
    from search.report.predictor import finalists_figure
    from search.results.records import foreseen, records
    from search.storage.studies import load_study

    found = [
        (part, spec, records(load_study(spec, folder, storage).study)) for part, spec, folder in begun(parts, runs)
    ]
    ways = finalists(found)
    if not ways:
        raise InputError(f"study {parts[0].whole}: no finalist has been trained yet; go on with prune-search run")
    lines, rows = [], []
    for way in ways:
        told = []
        for stop in way:
            r = stop.record
            said = foreseen(r) if r.predicted is not None else f"{r.accuracy:.2%} reached"
            told.append(f"{stop.part} {said}")
            keys = ("number", "mflops", "accuracy", "predicted", "predicted_std", "score")
            rows.append({"finalist": way[0].record.number, "part": stop.part, **{key: getattr(r, key) for key in keys}})
        lines.append(f"trial {way[0].record.number:3} ({way[0].record.mflops:.2f} MFLOPs): {'; '.join(told)}")
    return {"finalists": rows}, lines, finalists_figure(ways)

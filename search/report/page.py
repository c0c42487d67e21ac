"""The report: one study, or a comparison of several, as one self-contained HTML page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from optuna.study import Study

from pruner.system.files import write_out
from search.report import figures as plots
from search.report.style import short
from search.results.incumbent import Curves, standings
from search.results.records import Dense, Record, best, headline, importances, records
from search.results.table import html_table
from search.storage.studies import dense_of
from search.study.spec import StudySpec

Figures = Mapping[str, go.Figure]
"""Name, as used in file names -> figure."""


def study_figures(
    spec: StudySpec, found: Sequence[Record], importances: Mapping[str, float], dense: Dense | None
) -> dict[str, go.Figure]:
    """All figures of a study that have something to show."""
    figures = {
        "pareto": trade_off_figure(spec, found, dense),
        "history": plots.history_figure(found, spec.goal),
    }
    if any(r.curve for r in found):
        figures["curves"] = plots.curves_figure(found)
    if any(r.accuracy_before is not None for r in found):
        figures["before-after"] = plots.before_after_figure(found, sparse=spec.space.masks)
    if isinstance(spec.space.target_mflops, tuple) and not spec.space.masks:
        figures["choices"] = plots.choices_figure(found)
    if spec.variants and any(r.curve for r in found):
        figures["variants"] = plots.variants_figure(found)
    if importances:
        figures["importances"] = plots.importances_figure(importances)
    return figures | network_figures(best(found), dense)


def trade_off_figure(spec: StudySpec, found: Sequence[Record], dense: Dense | None) -> go.Figure:
    """A study's main figure: accuracy against operations or, in a study of masks, against size."""
    if spec.space.masks:
        return plots.sizes_figure(found, dense)
    return plots.pareto_figure(found, spec.score if spec.goal == "score" else None, dense)


def network_figures(r: Record | None, dense: Dense | None) -> dict[str, go.Figure]:
    """The figures of one trial's network."""
    if r is None or dense is None or not r.widths:
        return {}
    name = f"trial {r.number}"
    return {
        "map-sizes": plots.map_sizes_figure(r.widths, dense, name),
        "layers": plots.layers_figure(r.widths, dense, name),
        "widths": plots.widths_figure(r.widths, dense, name),
    }


def write_report(study: Study, spec: StudySpec, path: Path) -> dict[str, go.Figure]:
    """Write the report on the study's current state to `path`; returns the figures."""
    found = records(study)
    figures = study_figures(spec, found, importances(study), dense_of(study))
    write_out(path, study_report(spec, found, figures).encode())
    return figures


def study_report(spec: StudySpec, found: Sequence[Record], figures: Figures) -> str:
    """The HTML report on one study."""
    sentences = [spec.about, headline(found)]
    if spec.space.masks:
        sentences.append("Masks make weights zero; they leave the operations as they are.")
    return page(f"Study {spec.name}", sentences, figures, _table(found))


def comparison_report(curves: Curves, figure: go.Figure) -> str:
    """The HTML report that compares several studies."""
    return page("Studies compared", standings(curves), {"studies": figure})


def page(title: str, sentences: Sequence[str], figures: Figures, table: str = "") -> str:
    """A printable HTML page with figures. `table`: HTML."""
    # On a phone plotly's tool bar would cover the titles; a double click resets the zoom.
    config = {"responsive": True, "displaylogo": False, "displayModeBar": False}
    parts = [
        figure.to_html(full_html=False, include_plotlyjs=i == 0, config=config)
        for i, figure in enumerate(figures.values())
    ]
    body = "\n".join(f"<figure>{part}</figure>" for part in parts)
    text = "\n".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences if sentence)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; color: #222 }}
figure {{ margin: 2rem 0; break-inside: avoid }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; font-size: .85rem }}
th, td {{ padding: .25rem .4rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }}
th:nth-child(2), td:nth-child(2), th:last-child, td:last-child {{ text-align: left }}
td:last-child {{ white-space: normal; min-width: 14rem }}
pre {{ font-size: .8rem }}
tr.best {{ font-weight: 600; background: #fdf1e7 }}
@media (max-width: 700px) {{ td:last-child {{ white-space: nowrap }} }}
@media print {{
  @page {{ size: A4; margin: 12mm }}
  body {{ font-size: 10pt; max-width: 186mm; margin: 0; padding: 0 }}
  figure {{ margin: 4mm 0 }}
  .wide {{ overflow: visible }}
  table {{ font-size: 6.5pt }}
  th, td {{ padding: 1pt 3pt }}
  td:last-child {{ white-space: normal }}
}}
</style></head><body>
<h1>{html.escape(title)}</h1>
{text}
{body}
<div class="wide">{table}</div>
<script>
// Figures are as wide as the window or, when printed, as the page (186 mm are 703 px).
const fit = width => document.querySelectorAll(".plotly-graph-div").forEach(
  figure => Plotly.relayout(figure, width ? {{ autosize: false, width }} : {{ autosize: true, width: null }}));
addEventListener("beforeprint", () => fit(700));
addEventListener("afterprint", () => fit());
</script>
</body></html>
"""


def _table(found: Sequence[Record]) -> str:
    top = best(found)
    titles = (
        "trial", "state", "score", "MFLOPs", "removed", "accuracy", "before", "parameters", "removed", "ms", "seconds",
        "sampled",
    )  # fmt: skip
    rows = []
    for r in found:
        sampled = ", ".join(f"{name} {short(value)}" for name, value in r.sampled.items())
        cells = (
            str(r.number),
            r.state,
            _cell(r.score, ".2f"),
            _cell(r.mflops, ".2f"),
            _cell(r.mflops_removed, ".1%"),
            _cell(r.accuracy, ".2%"),
            _cell(r.accuracy_before, ".1%"),
            _cell(r.params, ",d"),
            _cell(r.params_removed, ".1%"),
            _cell(r.latency_ms, ".1f"),
            _cell(r.wall_seconds, ",.0f"),
            f"{sampled} {r.reason}",
        )
        rows.append(cells)
    return html_table(titles, rows, marked=found.index(top) if top else None)


def _cell(value: Any, form: str) -> str:
    return "" if value is None else format(value, form)

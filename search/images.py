"""Figures as PNG or SVG, drawn by a Chrome or Chromium on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import plotly.graph_objects as go

from pruner.errors import InputError
from pruner.extras import need
from pruner.files import write_whole
from search.progress import Progress

_SIZE = {"width": 900, "scale": 2}
"""Pixels, and how many of the image's there are to each."""


def write_images(figures: Mapping[str, go.Figure], folder: Path, format: str, progress: Progress) -> list[Path]:
    """Write each figure as `<name>.<format>`; returns the files.

    Raises InputError if the package that drives the browser, or the browser, is not there.
    """
    kaleido = need("kaleido", f"--images {format}", "images")
    from choreographer.browsers.chromium import Chromium

    if Chromium.find_browser(skip_local=False) is None:
        raise InputError(
            f"--images {format}: needs a Chrome or Chromium (found by its usual names, or in BROWSER_PATH)"
        )
    written = []
    kaleido.start_sync_server(silence_warnings=True)  # one browser for all of them
    with ExitStack() as held, progress.task(f"drawing {format}", len(figures), unit="figures") as bar:
        held.callback(kaleido.stop_sync_server, silence_warnings=True)
        for name, figure in figures.items():
            size = {**_SIZE, "height": figure.layout.height}
            content = kaleido.calc_fig_sync(figure, opts={"format": format, **size})
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.{format}"
            write_whole(path, content)
            written.append(path)
            bar.advance()
    return written

"""Write figures as PNG or SVG, rendered by a Chrome or Chromium on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import plotly.graph_objects as go

from pruner.errors import InputError
from pruner.system.extras import need
from pruner.system.files import write_out
from search.terminal.progress import Progress

_SIZE = {"width": 900, "scale": 2}
"""The width in CSS pixels, and the image's pixels per CSS pixel."""
_PATIENCE_S = 120.0
"""The limit for the browser's start and for each figure: far more than either takes, for machines under load."""


def write_images(
    figures: Mapping[str, go.Figure], folder: Path, format: str, progress: Progress, patience: float = _PATIENCE_S
) -> list[Path]:
    """Write each figure to `<name>.<format>`; returns the files.

    Raises InputError if the browser or the package that drives it is missing, or the browser does not respond.
    """
    need("kaleido", f"--images {format}", "images")
    from choreographer.browsers.chromium import Chromium

    browser = Chromium.find_browser(skip_local=False)
    if browser is None:
        raise InputError(
            f"--images {format}: needs a Chrome or Chromium (found by its usual names, or in BROWSER_PATH)"
        )
    # In a separate thread, because the caller may already run an event loop, as notebooks do.
    with ThreadPoolExecutor(1) as alone:
        try:
            return alone.submit(lambda: asyncio.run(_write(figures, folder, format, progress, patience))).result()
        except (TimeoutError, RuntimeError) as error:  # Kaleido and Choreographer raise RuntimeErrors
            raise InputError(f"--images {format}: {browser} does not work as a browser, or not in time") from error


async def _write(
    figures: Mapping[str, go.Figure], folder: Path, format: str, progress: Progress, patience: float
) -> list[Path]:
    from kaleido import Kaleido

    written = []
    browser = Kaleido(timeout=patience, mathjax=False)  # our titles have no formulas; MathJax would be downloaded
    try:
        await asyncio.wait_for(browser.open(), patience)
        with progress.task(f"drawing {format}", len(figures), unit="figures") as bar:
            for name, figure in figures.items():
                size = {**_SIZE, "height": figure.layout.height}
                content = await browser.calc_fig(figure, opts={"format": format, **size})
                path = folder / f"{name}.{format}"
                write_out(path, content)
                written.append(path)
                bar.advance()
    finally:
        await asyncio.wait_for(browser.close(), patience)
    return written

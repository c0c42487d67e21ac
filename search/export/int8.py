"""A trial's network in int8: made from training images, and measured beside the float network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from pruner.data.datasets import Dataset, Split
from pruner.exports.formats import Exported
from pruner.exports.int8 import CALIBRATION_IMAGES, METHOD, calibrate, errors_by_block, export_int8
from pruner.exports.onnx_file import open_onnx
from pruner.measurement.latency import Latency, in_turns, onnx_subject
from pruner.measurement.measure import accuracy, right_answers
from pruner.network.structure import MODULES
from pruner.resources import calibration
from search.results.table import markdown_table
from search.study.spec import StudySpec
from search.terminal.progress import Progress

_LOSS = 0.01
"""The loss of accuracy on the holdout from which on the block that loses most is looked for."""
_IMAGES = 128
"""Holdout images with which it is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Int8:
    """An int8 network beside the float network that it was made from."""

    file: str
    size_bytes: int
    float_bytes: int
    """The size of the float network as ONNX."""
    holdout: float
    """Accuracy on the holdout, in [0, 1]."""
    float_holdout: float
    test: float | None
    """Accuracy on the test images; None if the network is not graded."""
    float_test: float | None
    latency: Latency
    """By onnxruntime, measured in turns with the float network's."""
    float_latency: Latency
    calibration: str
    """How the ranges of its activations were found."""
    keep_float: tuple[str, ...]
    """The layers, blocks and stages that are left in float, as they were asked for."""
    worst_block: str | None
    """The block that loses most, if int8 loses more than a point on the holdout; None: it does not."""


def quantize(
    model: nn.Module,
    stem: Path,
    spec: StudySpec,
    data: Dataset,
    *,
    keep_float: Sequence[str],
    float_holdout: float,
    float_test: float | None,
    progress: Progress,
) -> tuple[Exported, Int8]:
    """Write the int8 network beside the others of `stem`, and measure what it costs and saves.

    `float_holdout` and `float_test`: the float network's accuracies. The test images are classified only if it has one.

    Raises InputError if a package is not installed; that `keep_float` names layers is checked beforehand.
    """
    resolution = spec.data.resolution
    images = calibration(data.train, CALIBRATION_IMAGES, spec.seed)
    with progress.task("int8: calibrating", len(images)) as bar:
        calibrated = calibrate(model, images, resolution=resolution, on_images=bar.advance)
    exported = export_int8(calibrated, stem, keep_float)
    classifier = open_onnx(exported.file, resolution=resolution)

    def accuracy_on(split: Split, text: str) -> float:
        with progress.task(f"int8: {text}", len(split)) as bar:
            return accuracy(right_answers(classifier, split, resolution=resolution, on_images=bar.advance))

    holdout = data.holdout.first(spec.eval_images) if spec.eval_images else data.holdout
    reached = accuracy_on(holdout, "holdout")
    worst = None
    if float_holdout - reached > _LOSS:
        with progress.task("int8: what loses most", len(MODULES), unit="blocks") as bar:
            errors = errors_by_block(calibrated, data.holdout.first(_IMAGES), keep_float, bar.advance)
        worst = min(errors, key=lambda block: errors[block], default=None)
    how = spec.latency
    float_latency, latency = in_turns(
        [
            onnx_subject(source, resolution=resolution, batch_size=how.batch_size, threads=how.threads)
            for source in (calibrated.float_onnx, exported.file)
        ],
        runs=how.runs,
    )
    return exported, Int8(
        file=exported.file.name,
        size_bytes=exported.size_bytes,
        float_bytes=len(calibrated.float_onnx),
        holdout=reached,
        float_holdout=float_holdout,
        test=None if float_test is None else accuracy_on(data.test, "test images"),
        float_test=float_test,
        latency=latency,
        float_latency=float_latency,
        calibration=f"{METHOD}, {len(images)} training images",
        keep_float=tuple(keep_float),
        worst_block=worst,
    )


def warning(int8: Mapping[str, Any]) -> str | None:
    """The line on what int8 loses and how to win it back; None if it is not more than a point."""
    if int8["worst_block"] is None:
        return None
    lost, kept = 100 * (int8["float_holdout"] - int8["holdout"]), ",".join((*int8["keep_float"], int8["worst_block"]))
    return (
        f"int8 loses {lost:.2f} points on the holdout, most of them in {int8['worst_block']}: to leave that in float, "
        f"give --keep-float {kept}"
    )


def int8_markdown(int8: Mapping[str, Any]) -> str:
    """The section of a card on the int8 network."""
    rows = [
        ("accuracy on the holdout", f"{int8['float_holdout']:.2%}", f"{int8['holdout']:.2%}"),
        ("bytes", f"{int8['float_bytes']:,}", f"{int8['size_bytes']:,}"),
        (
            f"latency ({int8['latency']['backend']}, threads: {int8['latency']['threads']})",
            *(f"{int8[which]['median_ms']:.2f} ms" for which in ("float_latency", "latency")),
        ),
    ]
    if int8["test"] is not None:
        rows.insert(1, ("accuracy on the test images", f"{int8['float_test']:.2%}", f"{int8['test']:.2%}"))
    kept = f", in float: {', '.join(int8['keep_float'])}" if int8["keep_float"] else ""
    lost = warning(int8)
    text = f"8-bit weights (per channel) and activations, by {int8['calibration']}{kept}; both networks as ONNX.\n"
    return f"## int8\n\n{text}\n{markdown_table(('', 'float', 'int8'), rows)}" + (f"\n{lost}.\n" if lost else "")

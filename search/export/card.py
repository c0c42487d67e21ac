"""The model card, as JSON and as Markdown: what the network is, how well it does, and how it was made."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from pruner.exports.formats import Exported
from pruner.measurement.latency import Latency
from pruner.system.machine import cores, processor
from search.export.grade import Grade
from search.export.int8 import int8_markdown
from search.report.style import short
from search.results.records import Dense, Record
from search.results.table import markdown_table
from search.study.spec import StudySpec

_PACKAGES = ("prune-search", "torch", "torchvision", "torch-pruning", "optuna")


def make_card(
    *,
    spec: StudySpec,
    record: Record,
    recipe: Mapping[str, Any],
    dense: Dense | None,
    class_names: Sequence[str],
    weights: str,
    test: Grade | None,
    latencies: Sequence[Latency],
    int8: Mapping[str, Any] | None,
    files: Sequence[Exported],
    command: str,
) -> dict[str, Any]:
    """The card as a JSON-ready value.

    `recipe`: as stored with the trial. `class_names`: of the outputs, if known. `weights`: the hash of the network's
    weights. `test`: its grade, if it has one. `int8`: its int8 network (`search.export.int8.Int8`), if it was made.
    """
    return {
        "network": "MobileNetV2, pruned",
        "study": spec.name,
        "trial": record.number,
        "data": spec.data.model_dump(mode="json", exclude={"root"}, exclude_none=True),
        "class_names": list(class_names),
        "count_resolution": spec.prune.count_resolution,
        "mflops": record.mflops,
        "mflops_removed": record.mflops_removed,
        "params": record.params,
        "params_removed": record.params_removed,
        "accuracy": {"holdout": record.accuracy, "test": test.accuracy if test else None},
        "score": {"holdout": record.score, "test": test.score if test else None},
        "test": asdict(test) if test else None,
        "latency": [asdict(latency) for latency in latencies],
        "int8": dict(int8) if int8 else None,
        "machine": {"processor": processor(), "cores": cores(), "system": platform.platform()},
        "files": [{**asdict(file), "file": file.file.name} for file in files],
        "widths": record.widths,
        "dense_widths": dense.widths if dense else None,
        "sampled": record.sampled,
        "recipe": dict(recipe),
        "weights": weights,
        "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "command": command,
    }


def card_markdown(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    accuracy, test = card["accuracy"], card["test"]
    graded = "test" if not test or test["graded_on"] == "test" else "validation"
    rows = [
        (
            "operations",
            f"{card['mflops']:.3f} MFLOPs at {card['count_resolution']} px ({card['mflops_removed']:.1%} removed)",
        ),
        ("parameters", f"{card['params']:,} ({card['params_removed']:.1%} removed)"),
        ("accuracy on the holdout", f"{accuracy['holdout']:.2%}"),
    ]
    if test:
        rows.append((f"accuracy on the {graded} images", f"{test['accuracy']:.2%}"))
        if test["score"] is not None:
            rows.append(("score", f"{test['score']:.2f} (on the {graded} images)"))
    else:
        rows.append(("accuracy on the test images", "not graded"))
    for took in card["latency"]:
        how = f"{took['backend']}, threads: {took['threads']}, batch: {took['batch_size']}, {took['resolution']} px"
        rows.append((f"latency ({how})", f"{took['median_ms']:.2f} ms; 90 % within {took['p90_ms']:.2f} ms"))
    rows.append(("measured on", f"{card['machine']['processor']}, {card['machine']['cores']} cores"))
    widths = [
        (group, str(width), str(card["dense_widths"][group]) if card["dense_widths"] else "")
        for group, width in card["widths"].items()
    ]
    files = [
        (f"`{file['file']}`", f"{file['size_bytes']:,}", f"{file['worst_difference']:.1e}") for file in card["files"]
    ]
    sampled = [(name, short(value)) for name, value in card["sampled"].items()]
    versions = ", ".join(f"{name} {number}" for name, number in card["versions"].items())
    return "\n".join(
        [
            f"# Trial {card['trial']} of study {card['study']}: a pruned MobileNetV2",
            "",
            f"Classifies {card['data']['name']} images at {card['data']['resolution']} pixels a side, normalised with "
            "ImageNet's mean and standard deviation.",
            "",
            markdown_table(("", ""), rows),
            *(["Its outputs, in order: " + ", ".join(card["class_names"]) + ".", ""] if card["class_names"] else []),
            "## Files",
            "",
            "Each file was loaded back; the difference is the largest in any output between it and the network.",
            "",
            markdown_table(("file", "bytes", "largest difference"), files),
            *([int8_markdown(card["int8"])] if card["int8"] else []),
            "## Channels",
            "",
            markdown_table(("group", "kept", "of"), widths),
            "## Recipe",
            "",
            markdown_table(("sampled", "value"), sampled)
            if sampled
            else "Nothing was sampled: the study file fixes the recipe.\n",
            "The JSON beside this file holds the whole recipe. This command reproduces the network:",
            "",
            f"    {card['command']}",
            "",
            f"With {versions}.",
            "",
        ]
    )

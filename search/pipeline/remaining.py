"""How long the rest of a study file will take, judged by what its trials have cost so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from pruner.train import Training
from search.pipeline.parts import Part
from search.results.records import Record
from search.sampling.samplers import budget
from search.study.sections import training
from search.study.spec import StudySpec
from search.study.text import DENSE

FROZEN = 0.77
"""What an epoch with frozen BatchNorm statistics costs compared with one without: 143 of 186 core-seconds
(studies/record/README.md)."""
PIXELS = 8000
"""What an image costs whatever its size, in pixels: an epoch at 224 px costs 1.89, 1.78 and 1.52 times one at 160 px
for networks of 38, 22 and 10 MFLOPs (studies/course, two-hours and record: `epochs.csv`), by pixels alone 1.96."""


@dataclass(frozen=True, slots=True)
class Progressed:
    """A part of a study file as far as it has come."""

    spec: StudySpec
    found: Sequence[Record] = ()
    """Its trials, those that are running with what their epochs on disk have cost; none if it has not begun."""
    epochs: Mapping[int, int] = field(default_factory=dict)
    """Number of a running trial -> how many epochs it has on disk."""


def not_begun(part: Part) -> Progressed:
    """A part that has no trial yet."""
    return Progressed(part.study([DENSE]))


def core_seconds_left(parts: Sequence[Progressed], train_images: int) -> float | None:
    """The core-seconds that all trials to come, and the rest of those under way, will take.

    A trial of a part that has finished some is expected to cost what these did on average; elsewhere, what the trials
    of the last part that trained (or, without training, that did not) cost for as many images of as many pixels, those
    with frozen statistics counted FROZEN times. Small networks of different sizes differ less in that than by their
    operations. What a study computes once (logits, rankings, the final evaluation) does not count.

    Args:
        parts: Every part of the file, in order.
        train_images: How many images there are to train on.

    Returns:
        None if there is no trial to judge by, or a part has no number of trials.
    """
    rates: dict[bool, float] = {}
    left = 0.0
    for part in parts:
        work = _work(part.spec, train_images)
        whole = sum(work) or 1.0
        ended = sum(r.ended for r in part.found)
        done = whole * ended + sum(sum(work[:epochs]) for epochs in part.epochs.values())
        if done:
            rates[bool(work)] = sum(r.cpu_seconds for r in part.found) / done
        count, rate = budget(part.spec), rates.get(bool(work))
        if count is None or rate is None:
            return None
        left += rate * max(0.0, whole * count - done)
    return left


def _work(spec: StudySpec, train_images: int) -> list[float]:
    """Images times pixels of every epoch of a trial, weighted by what they cost; empty without training."""
    last, between = training(spec.train, 1.0, spec.seed, spec.data), spec.iterative.trainings
    first = replace(last, phases=between).parts if between else ()
    return [
        _images(part, train_images) * (part.resolution**2 + PIXELS)
        for part in (*first, *last.parts)
        for _ in range(part.epochs)
    ]


def _images(part: Training, train_images: int) -> float:
    return (part.images_per_epoch or train_images) * (FROZEN if part.frozen_statistics else 1.0)

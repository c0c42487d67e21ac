"""How long the rest of a study file will take, judged by what its trials have cost so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

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
MFLOPS = 35
"""What an image costs whatever the network's size, in MFLOPs: with those three it costs 1.44, 1.18 and 1 at 160 px and
1.78, 1.36 and 1 at 224, by MFLOPs alone 3.8, 2.2 and 1."""

FADES = 0.5
"""What a part's cost still counts once the next one of its kind has cost something: the machine may be another one by
then, or less busy. After any training of studies/record, what was left was expected to cost at most 13 % too much (1:
12 %) where one machine did it all, and 17 % (1: 49 %) before the last two where an EPYC had taken over from a
slower Xeon."""

_UNITS = (("hours", 3600, 1), ("minutes", 60, 1), ("seconds", 1, 0))
"""Each with its seconds and the digits after the point."""


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

    A trial of a part that has finished some is expected to cost what these did on average; elsewhere, what those that
    trained (or, without training, that did not) in the parts before cost for as many images of as many pixels and
    MFLOPs, the later ones counted more (FADES), those with frozen statistics counted FROZEN times. Before the first
    training, an image trained on is taken to cost what one evaluated untrained does, with its share of the
    reconstruction: right within 2 % for the searches of studies/course, 22 and 31 % too little for those at 15 and 12
    MFLOPs of studies/record. A part that has no trial yet prunes to its target or, if it has none, trains what the part
    before it leaves. What a study computes once (logits, rankings, the final evaluation) does not count.

    Args:
        parts: Every part of the file, in order.
        train_images: How many images there are to train on.

    Returns:
        None if there is no trial to judge by, or a part has no number of trials.
    """
    spent, worked = {True: 0.0, False: 0.0}, {True: 0.0, False: 0.0}
    left = mflops = 0.0
    for part in parts:
        mflops = _mflops(part) or mflops
        work = _work(part.spec, train_images, mflops)
        whole = sum(work)
        ended = sum(r.ended for r in part.found)
        done = whole * ended + sum(sum(work[:epochs]) for epochs in part.epochs.values())
        cost, trains, count = sum(r.cpu_seconds for r in part.found), part.spec.total_epochs > 0, budget(part.spec)
        if done:
            spent[trains] = FADES * spent[trains] + cost
            worked[trains] = FADES * worked[trains] + done
        alike = trains if worked[trains] else not trains
        if count is None or not worked[alike]:
            return None
        rate = cost / done if done else spent[alike] / worked[alike]
        left += rate * max(0.0, whole * count - done)
    return left


def to_come(core_seconds: float | None, by: str = "") -> str:
    """The work to come as a sentence that ends with `by`; empty if there is none, or if it is not known."""
    for unit, seconds, digits in _UNITS:
        if core_seconds is not None and core_seconds >= seconds:
            return f"To come: about {core_seconds / seconds:.{digits}f} core-{unit}{by}."
    return ""


def _mflops(part: Progressed) -> float | None:
    """Of its trials on average, or its target; None if it has neither, or several targets."""
    known = [r.mflops for r in part.found if r.mflops is not None]
    target = part.spec.space.target_mflops
    return sum(known) / len(known) if known else target if isinstance(target, float) else None


def _work(spec: StudySpec, train_images: int, mflops: float) -> list[float]:
    """What each epoch of a trial costs, in a unit of its own; without training, what evaluating it does."""
    last, between = training(spec.train, 1.0, spec.seed, spec.data), spec.iterative.trainings
    first = replace(last, phases=between).parts if between else ()
    epochs = [
        _price(part.images_per_epoch or train_images, part.resolution, mflops)
        * (FROZEN if part.frozen_statistics else 1.0)
        for part in (*first, *last.parts)
        for _ in range(part.epochs)
    ]
    evaluated = spec.eval_images or spec.data.holdout or train_images // 9  # a holdout is a tenth, unless it is given
    return epochs or [_price(evaluated, spec.data.resolution, mflops)]


def _price(images: int, resolution: int, mflops: float) -> float:
    """Images times pixels times MFLOPs, with what does not depend on these."""
    return images * (resolution**2 + PIXELS) * (mflops + MFLOPS)

"""One trial: plan, cut, retrain, measure. Every finished step is on disk; a killed trial goes on from the last."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Protocol

from pruner.channels.plan import ChannelPlan, apply_plan
from pruner.compression import Compression, plan_channels, ranked_by
from pruner.measurement.latency import Latency
from pruner.measurement.measure import Measurement, accuracy, evaluate, measure
from pruner.recipe import Recipe
from search.cost import Work
from search.signals import deferred
from search.storage.folder import TrialFolder
from search.terminal.progress import Bar
from search.trial.context import Context, measure_latency


class Watch(Protocol):
    """Who looks on, and may end the trial by an exception."""

    @property
    def title(self) -> str:
        """What the trial is called in progress bars."""

    def planned(self, plan: ChannelPlan, fingerprint: str) -> TrialFolder | None:
        """Called before any training; returns an equal trial that is finished, if there is one."""

    def timed(self, latency: Latency) -> None:
        """Called before any training."""

    def images(self, count: int) -> None:
        """Called after every `count` images that were trained on or classified."""

    def learned(self, before: float | None, curve: Sequence[float], work: Sequence[float]) -> None:
        """Called with the accuracies so far on the watched holdout images: before training; after each epoch, at the
        resolution it trained at; and with the core-seconds of work on the trial until each of these."""

    def epoch(self, number: int) -> None:
        """Called after each epoch, when it is on disk and was told to `learned`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished trial."""

    measurement: Measurement
    work: Work
    """Over all runs of the trial; none if an equal trial's results were taken over."""
    latency: Latency


def run_trial(recipe: Recipe, context: Context, folder: TrialFolder, watch: Watch) -> Outcome:
    """Carry out a recipe in a folder, as far as that is not done yet."""
    began = Work.now()
    parent = context.parent(recipe.parent)
    folder.begin(recipe, parent.key)
    plan = folder.plan()
    if plan is None:
        for importance in ranked_by(recipe.prune):
            context.scores(importance, parent.model)
        began = Work.now()  # ranking channels serves the whole study, not this trial alone
        plan = folder.keep_plan(plan_channels(parent.model, recipe.prune, context))
        folder.log(f"planned: {plan.mflops:.3f} MFLOPs, {plan.params} parameters")
    twin = watch.planned(plan, fingerprint(plan, recipe, parent.key))
    if twin and not folder.result():
        folder.take_over(twin)
    if result := folder.result():
        timed = folder.latency() or folder.keep_latency(measure_latency(apply_plan(parent.model, plan), context.spec))
        watch.timed(timed)
        _learned(watch, result["before"], result["history"])
    else:
        timed = _train_and_measure(plan, recipe, context, folder, watch, began)
        result = folder.result()
        assert result is not None
    return Outcome(result["measurement"], folder.spent(), timed)


def fingerprint(plan: ChannelPlan, recipe: Recipe, parent: str) -> str:
    """Equal for trials of a study that would end in the same network: same channels kept of the parent with this key,
    same training."""
    more = [asdict(part) for part in (recipe.mask, recipe.rounds) if part]
    repaired = ["repaired"] if recipe.prune.repair else []
    content = json.dumps([plan.as_json()["keep"], asdict(recipe.tune), parent, *more, *repaired], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _train_and_measure(
    plan: ChannelPlan, recipe: Recipe, context: Context, folder: TrialFolder, watch: Watch, began: Work
) -> Latency:
    data, spec = context.data, context.spec
    parent = context.parent(recipe.parent).model
    timed = folder.latency() or folder.keep_latency(measure_latency(apply_plan(parent, plan), spec))
    watch.timed(timed)
    resume = folder.checkpoint() or {"state": None, "history": [], "before": None}
    history: list[dict[str, float]] = resume["history"]
    before: dict[str, float] | None = resume["before"]
    if history:  # epochs of an earlier run: its last report may not have arrived
        _learned(watch, before, history)
    for row in history:
        watch.epoch(int(row["epoch"]))
    watched = data.holdout.first(spec.watch_images)
    run = Compression(parent, recipe, plan, context, resume=resume["state"])
    images = run.images
    held = data.holdout.first(spec.measure_images) if spec.measure_images else data.holdout
    total = len(watched) + sum(images) + len(images) * len(watched) + len(held)
    done = sum(images[: len(history)]) + len(history) * len(watched) + (len(watched) if before else 0)
    with context.progress.task(watch.title, total, done=done) as bar:

        def on_images(count: int) -> None:
            bar.advance(count)
            watch.images(count)

        def look(resolution: int) -> float:
            right = evaluate(run.model, watched, resolution=resolution, on_images=on_images)
            return accuracy(right)

        if before is None and len(watched):
            bar.say(f"{watch.title}, before training")
            looking = Work.now()
            before = {"accuracy": look(spec.data.resolution), "seconds": (Work.now() - looking).seconds}
            before["core_seconds"] = (Work.now() - began).core_seconds
        _learned(watch, before, history)
        _say(bar, watch.title, len(history), len(images))
        mark = began
        for epoch in run.epochs(on_images):
            trained = Work.now()
            row = {"epoch": epoch.number, "loss": epoch.loss, "accuracy": epoch.accuracy}
            if len(watched):
                row["holdout"] = look(epoch.resolution)
            now = Work.now()
            row |= asdict(now - mark) | {"training": epoch.seconds, "evaluation": (now - trained).seconds}
            mark = now
            history.append(row)
            with deferred():
                folder.keep_checkpoint(epoch.state, history, before)
            folder.log(", ".join(f"{key} {value:.4g}" for key, value in row.items()))
            _say(bar, watch.title, epoch.number, len(images))
            _learned(watch, before, history)
            watch.epoch(epoch.number)
        measuring = Work.now()
        measurement = measure(run.model, held, resolution=spec.data.resolution, on_images=on_images)
        measured = Work.now()
    folder.keep_model(run.model)
    work = folder.spent() + Work.now() - mark
    spent = {
        "total": work.seconds,
        "cores": work.core_seconds,
        "training": sum(row["training"] for row in history),
        "evaluation": sum(row["evaluation"] for row in history) + (measured - measuring).seconds,
    }
    if before:
        spent["evaluation"] += before["seconds"]
    folder.log(f"measured: {measurement}")
    folder.keep_result(
        measurement,
        {key: round(value, 3) for key, value in spent.items()},
        history,
        before,
    )
    return timed


def _learned(watch: Watch, before: Mapping[str, float] | None, history: Sequence[Mapping[str, float]]) -> None:
    curve = [row["holdout"] for row in history if "holdout" in row]
    work = list(accumulate(row.get("core_seconds", row["seconds"]) for row in history)) if curve else []
    if before:
        work.insert(0, before.get("core_seconds", 0.0))
    watch.learned(before["accuracy"] if before else None, curve, work)


def _say(bar: Bar, title: str, done: int, epochs: int) -> None:
    bar.say(f"{title}, epoch {done + 1}/{epochs}" if done < epochs else f"{title}, holdout")

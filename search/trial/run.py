"""One trial: plan, prune, retrain, measure. Every finished step is on disk; a killed trial resumes from the last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Protocol

from pruner.channels.plan import ChannelPlan, apply_plan
from pruner.compression import Compression, plan_channels, ranked_by
from pruner.measurement.latency import Latency
from pruner.measurement.measure import Measurement, accuracy, evaluate, measure
from pruner.recipe import Recipe
from pruner.system.hashes import json_hash
from search.cost import Cost
from search.signals import deferred
from search.storage.trial_folder import TrialFolder
from search.terminal.progress import Bar
from search.trial.context import Context, measure_latency


class Callbacks(Protocol):
    """Called as a trial progresses; may end the trial by raising an exception."""

    @property
    def title(self) -> str:
        """The trial's name in progress bars."""

    def planned(self, plan: ChannelPlan, hash: str) -> TrialFolder | None:
        """Called before any training; returns the folder of a finished duplicate, if there is one."""

    def timed(self, latency: Latency) -> None:
        """Called before any training."""

    def images(self, count: int) -> None:
        """Called after every `count` images that were trained on or classified."""

    def learned(self, before: float | None, curve: Sequence[float], cost: Sequence[float]) -> None:
        """Called with the accuracies so far on the first `epoch_eval_images` holdout images: `before` training, and
        after each epoch at its training resolution. `cost`: the core-seconds spent up to each of these."""

    def epoch(self, number: int) -> None:
        """Called after each epoch, once it is on disk and `learned` was called with it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished trial."""

    measurement: Measurement
    cost: Cost
    """Over all runs of the trial; zero if a duplicate's results were copied."""
    latency: Latency


def run_trial(recipe: Recipe, context: Context, folder: TrialFolder, callbacks: Callbacks) -> Outcome:
    """Carry out a recipe in a folder, skipping steps that are done."""
    began = Cost.now()
    parent = context.parent(recipe.parent)
    folder.begin(recipe, parent.hash)
    plan = folder.plan()
    if plan is None:
        for importance in ranked_by(recipe.prune):
            context.scores(importance, parent.model)
        began = Cost.now()  # ranking channels serves the whole study, not this trial alone
        plan = folder.save_plan(plan_channels(parent.model, recipe.prune, context))
        folder.log(f"planned: {plan.mflops:.3f} MFLOPs, {plan.params} parameters")
    duplicate = callbacks.planned(plan, trial_hash(plan, recipe, parent.hash))
    if duplicate and not folder.result():
        folder.copy_from(duplicate)
    latency = folder.latency() or folder.save_latency(measure_latency(apply_plan(parent.model, plan), context.spec))
    callbacks.timed(latency)
    result = folder.result()
    if result is None:
        _compress(plan, recipe, context, folder, callbacks, began)
        result = folder.result()
        assert result is not None
    else:
        _learned(callbacks, result["before"], result["history"])
    return Outcome(result["measurement"], folder.spent(), latency)


def trial_hash(plan: ChannelPlan, recipe: Recipe, parent: str) -> str:
    """A hash that is equal for trials of a study that would end in the same network: they keep the same channels of
    the parent with the hash `parent` and train alike."""
    same = [plan.as_json()["keep"], recipe.prune.reconstruct, *map(asdict, (recipe.train, recipe.iterative))]
    masks = asdict(recipe.mask) if recipe.mask else None
    return json_hash([parent, *same, masks])


def _compress(
    plan: ChannelPlan, recipe: Recipe, context: Context, folder: TrialFolder, callbacks: Callbacks, began: Cost
) -> None:
    data, spec = context.data, context.spec
    resume = folder.checkpoint() or {"state": None, "history": [], "before": None}
    history: list[dict[str, float]] = resume["history"]
    before: dict[str, float] | None = resume["before"]
    if history:  # epochs of an earlier run: its last report may not have arrived
        _learned(callbacks, before, history)
    for row in history:
        callbacks.epoch(int(row["epoch"]))
    some = data.holdout.first(spec.epoch_eval_images)
    run = Compression(context.parent(recipe.parent).model, recipe, plan, context, resume=resume["state"])
    images = run.images
    held = data.holdout.first(spec.eval_images) if spec.eval_images else data.holdout
    total = len(some) + sum(images) + len(images) * len(some) + len(held)
    done = sum(images[: len(history)]) + len(history) * len(some) + (len(some) if before else 0)
    with context.progress.task(callbacks.title, total, done=done) as bar:

        def on_images(count: int) -> None:
            bar.advance(count)
            callbacks.images(count)

        def evaluated(resolution: int) -> float:
            return accuracy(evaluate(run.model, some, resolution=resolution, on_images=on_images))

        if before is None and len(some):
            bar.say(f"{callbacks.title}, before training")
            before = {"accuracy": evaluated(spec.data.resolution), "cpu_seconds": (Cost.now() - began).cpu_seconds}
        _learned(callbacks, before, history)
        _say(bar, callbacks.title, len(history), len(images))
        mark = began
        for epoch in run.epochs(on_images):
            row = {
                "epoch": epoch.number, "resolution": epoch.resolution, "learning_rate": epoch.learning_rate,
                "loss": epoch.loss, "accuracy": epoch.accuracy,
            }  # fmt: skip
            if len(some):
                row["holdout"] = evaluated(epoch.resolution)
            now = Cost.now()
            row |= asdict(now - mark) | {"training_seconds": epoch.seconds}
            mark = now
            history.append(row)
            with deferred():
                folder.save_checkpoint(epoch.state, history, before)
            folder.log(", ".join(f"{key} {value:.4g}" for key, value in row.items()))
            _say(bar, callbacks.title, epoch.number, len(images))
            _learned(callbacks, before, history)
            callbacks.epoch(epoch.number)
        measurement = measure(
            run.model, held, resolution=spec.data.resolution, count_resolution=spec.prune.count_resolution,
            on_images=on_images,
        )  # fmt: skip
    folder.save_model(run.model)
    folder.log(f"measured: {measurement}")
    folder.save_result(measurement, folder.spent() + Cost.now() - mark, history, before)


def _learned(callbacks: Callbacks, before: Mapping[str, float] | None, history: Sequence[Mapping[str, float]]) -> None:
    curve = [row["holdout"] for row in history if "holdout" in row]
    cost = list(accumulate(row["cpu_seconds"] for row in history)) if curve else []
    if before:
        cost.insert(0, before["cpu_seconds"])
    callbacks.learned(before["accuracy"] if before else None, curve, cost)


def _say(bar: Bar, title: str, done: int, epochs: int) -> None:
    bar.say(f"{title}, epoch {done + 1}/{epochs}" if done < epochs else f"{title}, holdout")

"""A trial's cuts and trainings: one of each for most recipes; in rounds, each cut is made in what the last one left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from pruner.channels.plan import ChannelPlan, apply_plan, between, on_the_way
from pruner.recipe import Recipe
from pruner.system.seeds import mix
from pruner.training.fine_tune import Epoch, epoch_images, fine_tune
from pruner.tune import Tune
from pruner.weights.masks import MaskKeeper, apply_masks, cubic, tightened, weights
from search.trial.context import Bench
from search.trial.parent import Parent
from search.trial.speed import with_executions


@dataclass(frozen=True, slots=True)
class Round:
    """A cut and the training after it."""

    plan: ChannelPlan
    """What of the parent is left."""
    tune: Tune


def rounds_of(plan: ChannelPlan, recipe: Recipe, bench: Bench, parent: Parent) -> list[Round]:
    """The rounds of a recipe; the last one ends at the plan."""
    found = []
    if recipe.rounds:
        scores, _ = bench.rankings(recipe.prune, parent)
        for number, target in enumerate(recipe.rounds.targets(plan.dense_mflops, plan.mflops)):
            tune = replace(recipe.round_tune, seed=mix(recipe.tune.seed, number + 1))
            found.append(Round(on_the_way(plan, scores, target, bench.data.classes), tune))
    return [*found, Round(plan, recipe.tune)]


class Training:
    """What happens to one network from the first cut to the end of the last training."""

    def __init__(
        self, plan: ChannelPlan, cut: nn.Module, recipe: Recipe, bench: Bench, state: dict[str, Any] | None
    ) -> None:
        """`cut`: what the plan leaves of the recipe's parent, as it is. `state`: of the last epoch that is on disk, as
        `epochs` gave it; None: nothing is done yet."""
        self._recipe, self._bench = recipe, bench
        self._parent = bench.parent(recipe.parent)
        self._rounds = rounds_of(plan, recipe, bench, self._parent)
        self._at: int = state["round"] if state else 0
        self._state: dict[str, Any] | None = state["training"] if state else None
        now = self._rounds[self._at].plan
        self.model = cut if now is plan else apply_plan(self._parent.model, now)
        if self._state is None:  # otherwise the weights are in the state
            self._repair(self._parent.model, now)
        self._keeper = self._masks()

    @property
    def images(self) -> list[int]:
        """How many images each epoch trains on, those that are done as well."""
        return [count for one in self._rounds for count in epoch_images(self._bench.data.train, one.tune)]

    def epochs(self, on_images: Callable[[int], None]) -> Iterator[tuple[Epoch, dict[str, Any]]]:
        """Go on from where it stands: (epoch, state to go on after it), epoch by epoch.

        `model` is the network as it is at that moment; after the last epoch, as it is kept.
        """
        data = self._bench.data
        teacher = self._bench.teacher() if self._recipe.tune.temperature else None
        while True:
            one = self._rounds[self._at]
            before = sum(earlier.tune.total_epochs for earlier in self._rounds[: self._at])
            tune = with_executions(self.model, one.tune, data, self._bench.folder, self._bench.progress)
            reports = fine_tune(
                self.model, data.train, tune, mirrors=data.mirrors, keeper=self._keeper, teacher=teacher,
                in_use=self._bench.spec.data.resolution, resume=self._state, on_images=on_images,
            )  # fmt: skip
            for epoch in reports:
                yield replace(epoch, number=before + epoch.number), {"training": epoch.state, "round": self._at}
            if one is self._rounds[-1]:
                return
            self._at, self._state = self._at + 1, None
            before_cut, plan = self.model.eval(), between(one.plan, self._rounds[self._at].plan)
            self.model = apply_plan(before_cut, plan)
            self._repair(before_cut, plan)
            self._keeper = self._masks()

    def _repair(self, before: nn.Module, plan: ChannelPlan) -> None:
        if self._recipe.prune.repair and plan.kept_widths != plan.dense_widths:
            self._bench.repair(self.model, self._bench.look(before), plan)

    def _masks(self) -> MaskKeeper | None:
        """Of the last round. Masks that are due before training are made and applied; who goes on has them in his
        checkpoint."""
        mask = self._recipe.mask
        if mask is None or self._at < len(self._rounds) - 1:
            return None
        masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights(self.model).items()}
        if self._state is None and not mask.gradual:
            plan, bench = self._rounds[self._at].plan, self._bench
            uncut = plan.kept_widths == plan.dense_widths
            targets = bench.look(self._parent.model if uncut else self.model) if self._recipe.prune.repair else None
            for step in range(mask.rounds):
                scores = bench.weight_scores(self.model, mask.importance)
                masks = tightened(masks, scores, mask, cubic((step + 1) / mask.rounds))
                apply_masks(self.model, masks)
                if targets is not None:
                    bench.repair(self.model, targets, between(plan, plan), masks)
        return MaskKeeper(self.model, mask, masks)

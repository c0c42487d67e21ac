"""One network through its whole recipe: prune, in one step or several, reconstruct, mask, train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import MobileNetV2

from pruner.channels.importance import Scores
from pruner.channels.plan import ChannelPlan, apply_plan, compose_plans, interpolate_plan, make_plan, needs_curves
from pruner.channels.reconstruct import Targets
from pruner.data.datasets import Dataset
from pruner.network.mobilenet import classes
from pruner.recipe import Prune, Recipe
from pruner.system.seeds import mix
from pruner.train import Training
from pruner.training.average import recalibrate_batchnorm
from pruner.training.distill import Teacher
from pruner.training.fine_tune import Epoch, epoch_images, fine_tune
from pruner.weights.masks import MaskKeeper, Masks, apply_masks, cubic, shrink_masks, weights

_RECALIBRATION_IMAGES = 512
"""As many as reconstruction is given, unless a study says otherwise."""
_CURVES = "obs"
"""Sorted, the scores by this importance are the curves that a target is allocated by."""


class Resources(Protocol):
    """What compressing a network needs beside its recipe.

    `pruner.resources.InMemory` computes all of it on demand; a study keeps it on disk, shared by its workers.
    """

    @property
    def data(self) -> Dataset:
        """The images, on the device of training."""

    @property
    def resolution(self) -> int:
        """Pixels a side of the images that the network is for."""

    def scores(self, importance: str, model: MobileNetV2) -> Scores:
        """The network's channel scores by one of `pruner.recipe.IMPORTANCES`."""

    def weight_scores(self, importance: str, model: nn.Module) -> dict[str, Tensor]:
        """The importance of each weight of a network that may have been pruned."""

    def targets(self, model: MobileNetV2) -> Targets:
        """What a network computes, for `reconstruct` to fit another one to."""

    def reconstruct(self, model: MobileNetV2, targets: Targets, plan: ChannelPlan, masks: Masks | None = None) -> None:
        """Refit in place the network that a plan, and maybe masks, made of the one that `targets` come from."""

    def teacher(self) -> Teacher:
        """The dense network's logits for all training images."""


def plan_channels(parent: MobileNetV2, prune: Prune, resources: Resources) -> ChannelPlan:
    """The plan that a recipe's `Prune` gives for a network.

    Raises:
        InputError: A target cannot be reached.
    """
    curves = resources.scores(_CURVES, parent) if needs_curves(prune) else None
    return make_plan(parent, prune, resources.scores(prune.importance, parent), curves)


def ranked_by(prune: Prune) -> tuple[str, ...]:
    """The importances whose scores `plan_channels` asks for."""
    return tuple(dict.fromkeys([*([_CURVES] if needs_curves(prune) else []), prune.importance]))


def compress(
    parent: MobileNetV2, recipe: Recipe, resources: Resources, *, on_epoch: Callable[[Epoch], None] | None = None
) -> MobileNetV2:
    """Carry out a recipe.

    Args:
        parent: The network to prune, on the CPU, in eval mode; it stays as it is.
        recipe: What to do to it.
        resources: Images, and what is computed from them.
        on_epoch: Called after each epoch of training.

    Returns:
        The compressed network, on the device of the images.

    Raises:
        InputError: The recipe cannot be carried out on this network.
        Diverged: The loss is no longer a number.
    """
    run = Compression(parent, recipe, plan_channels(parent, recipe.prune, resources), resources)
    for epoch in run.epochs():
        if on_epoch:
            on_epoch(epoch)
    return run.model


@dataclass(frozen=True, slots=True)
class _Step:
    """One step of pruning and the training after it."""

    plan: ChannelPlan
    """Which of the parent's channels are left."""
    train: Training


class Compression:
    """One network on its way through a recipe; any epoch can be the start of another run.

    Attributes:
        model: The network as it is at this moment; after the last epoch of `epochs`, the result.
    """

    def __init__(
        self,
        parent: MobileNetV2,
        recipe: Recipe,
        plan: ChannelPlan,
        resources: Resources,
        *,
        resume: dict[str, Any] | None = None,
    ) -> None:
        """Prune for the first time, with reconstruction and masks, unless a run is resumed.

        Args:
            parent: The network to prune, on the CPU, in eval mode; it stays as it is.
            recipe: What to do to it.
            plan: The channels that the last step leaves (`plan_channels`).
            resources: Images, and what is computed from them.
            resume: The `state` of an earlier run's epoch, to go on after it.
        """
        self._parent, self._recipe, self._resources = parent, recipe, resources
        self._steps = self._steps_to(plan)
        self._at: int = resume["step"] if resume else 0
        self._state: dict[str, Any] | None = resume["training"] if resume else None
        first = self._steps[self._at].plan
        self.model = apply_plan(parent, first)
        if self._state is None:  # otherwise the weights are in the state
            self._reconstruct(parent, first)
            self._recalibrate(first)
        self._keeper = self._masks()

    @property
    def images(self) -> list[int]:
        """How many images each epoch trains on, those that are done included."""
        return [count for step in self._steps for count in epoch_images(self._resources.data.train, step.train)]

    def epochs(self, on_images: Callable[[int], None] | None = None) -> Iterator[Epoch]:
        """Train epoch by epoch; between two steps, prune and reconstruct.

        Args:
            on_images: Called with n after every n images trained on.

        Yields:
            A report after each epoch, numbered over all steps. Its `state` is what `resume` takes; it holds live
            tensors, so save or copy it before the next epoch.

        Raises:
            Diverged: The loss is no longer a number.
        """
        data = self._resources.data
        teacher = self._resources.teacher() if self._recipe.needs_teacher else None
        while True:
            step = self._steps[self._at]
            before = sum(earlier.train.total_epochs for earlier in self._steps[: self._at])
            reports = fine_tune(
                self.model, data.train, step.train, mirrors=data.mirrors,
                keeper=self._keeper, teacher=teacher, resolution=self._resources.resolution, resume=self._state,
                on_images=on_images,
            )  # fmt: skip
            for epoch in reports:
                state = {"training": epoch.state, "step": self._at}
                yield replace(epoch, number=before + epoch.number, state=state)
            if step is self._steps[-1]:
                return
            self._at, self._state = self._at + 1, None
            wider, plan = self.model.eval(), compose_plans(step.plan, self._steps[self._at].plan)
            self.model = apply_plan(wider, plan)
            self._reconstruct(wider, plan)
            self._keeper = self._masks()

    def _steps_to(self, plan: ChannelPlan) -> list[_Step]:
        """The steps of the recipe; the last one ends at the plan."""
        recipe, found = self._recipe, []
        for number, target in enumerate(recipe.iterative.targets(plan.dense_mflops, plan.mflops)):
            scores = self._resources.scores(recipe.prune.importance, self._parent)
            train = replace(recipe.step_train, seed=mix(recipe.train.seed, number + 1))
            smaller = interpolate_plan(plan, scores, target, classes(self._parent), recipe.prune.count_resolution)
            found.append(_Step(smaller, train))
        return [*found, _Step(plan, recipe.train)]

    def _reconstruct(self, wider: MobileNetV2, plan: ChannelPlan) -> None:
        if self._recipe.prune.reconstruct and plan.kept_widths != plan.dense_widths:
            self._resources.reconstruct(self.model, self._resources.targets(wider), plan)

    def _recalibrate(self, plan: ChannelPlan) -> None:
        """Recalibrate the BatchNorm statistics of a network that is judged without reconstruction and training.

        They are those of channels that are gone; judged by them, every such network is at chance (EagleEye, Li et al.
        2020).
        """
        untrained = not any(step.train.total_epochs for step in self._steps)
        if untrained and not self._recipe.prune.reconstruct and plan.kept_widths != plan.dense_widths:
            train = self._recipe.train
            recalibrate_batchnorm(
                self.model.to(self._resources.data.train.images.device), self._resources.data.train,
                count=train.bn_recalibration_images or _RECALIBRATION_IMAGES, resolution=self._resources.resolution,
                seed=train.seed,
            )  # fmt: skip

    def _masks(self) -> MaskKeeper | None:
        """The mask enforcer of the last step; None before it.

        One-shot masks are computed and applied here; a resumed run loads them from its state.
        """
        mask = self._recipe.mask
        if mask is None or self._at < len(self._steps) - 1:
            return None
        masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights(self.model).items()}
        if self._state is None and not mask.gradual:
            plan, resources = self._steps[self._at].plan, self._resources
            unpruned = plan.kept_widths == plan.dense_widths
            targets = (
                resources.targets(self._parent if unpruned else self.model) if self._recipe.prune.reconstruct else None
            )
            for step in range(mask.steps):
                scores = resources.weight_scores(mask.importance, self.model)
                masks = shrink_masks(masks, scores, mask, cubic((step + 1) / mask.steps))
                apply_masks(self.model, masks)
                if targets is not None:
                    resources.reconstruct(self.model, targets, compose_plans(plan, plan), masks)
        return MaskKeeper(self.model, mask, masks)

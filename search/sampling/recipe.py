"""Sampled parameters -> recipe, and back."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from optuna.trial import Trial

from pruner.errors import InputError
from pruner.recipe import Mask, Prune, PruneSettings, Recipe
from pruner.schema import fields_of
from search.study.sections import training
from search.study.space import Range
from search.study.spec import StudySpec


def dimensions(spec: StudySpec) -> dict[str, Any]:
    """Parameter name -> its entry in the study file (a value, a tuple of choices, a Range), in a fixed order."""
    variants = {"variant": tuple(spec.variants)} if spec.variants else {}
    return variants | spec.space.dimensions()


def suggest(trial: Trial, spec: StudySpec) -> None:
    """Have Optuna sample every free parameter."""
    for name, dimension in dimensions(spec).items():
        if isinstance(dimension, Range):
            trial.suggest_float(name, dimension.low, dimension.high, step=dimension.step, log=dimension.log)
        elif isinstance(dimension, tuple):
            trial.suggest_categorical(name, dimension)


def recipe(sampled: Mapping[str, Any], spec: StudySpec) -> Recipe:
    """The recipe for one value of every free parameter."""
    if "variant" in sampled:
        spec = spec.variant(sampled["variant"])
    values = {**dimensions(spec), **sampled}
    pruning_ratio = {stage: values[f"pruning_ratio.{stage}"] for stage in spec.space.pruning_ratio}
    if spec.space.output_pruning_ratio is None:
        output_pruning_ratio = {stage: value for stage, value in pruning_ratio.items() if stage != "head"}
    else:
        output_pruning_ratio = {
            stage: values[f"output_pruning_ratio.{stage}"] for stage in spec.space.output_pruning_ratio
        }
    prune = Prune(
        importance=values["importance"],
        pruning_ratio=pruning_ratio,
        output_pruning_ratio=output_pruning_ratio,
        global_pruning_ratio=values.get("global_pruning_ratio"),
        target_mflops=values.get("target_mflops"),
        allocation=values.get("allocation", "lagrangian"),
        error_scale={stage: values[f"error_scale.{stage}"] for stage in spec.space.error_scale},
        reconstruct=values["reconstruct"],
        **fields_of(spec.prune, PruneSettings),
    )
    # One seed for all trials: recipes with equal plans then give equal networks, and need training only once.
    train = training(spec.train, values["learning_rate"], spec.seed, spec.data)
    mask = _mask(values, spec) if spec.space.masks else None
    return Recipe(prune=prune, train=train, parent=values["parent"], mask=mask, iterative=spec.iterative)


def sampled(asked: Recipe, spec: StudySpec) -> dict[str, Any] | None:
    """The parameters from which a trial of the study gets this recipe; None if no trial of it can have it."""
    prune, mask = asked.prune, asked.mask
    values: dict[str, Any] = {
        "parent": asked.parent,
        "importance": prune.importance,
        "learning_rate": asked.train.learning_rate,
        "global_pruning_ratio": prune.global_pruning_ratio,
        "target_mflops": prune.target_mflops,
        "allocation": prune.allocation,
        "reconstruct": prune.reconstruct,
    }
    values |= {f"error_scale.{stage}": value for stage, value in prune.error_scale.items()}
    values |= {f"pruning_ratio.{stage}": value for stage, value in prune.pruning_ratio.items()}
    values |= {f"output_pruning_ratio.{stage}": value for stage, value in prune.output_pruning_ratio.items()}
    if mask:
        values |= {"mask_importance": mask.importance, "masking": "gradual" if mask.gradual else "one-shot"}
        values |= {f"sparsity.{stage}": value for stage, value in mask.sparsity.items()}
        values["global_sparsity"] = mask.global_sparsity
    for variant in spec.variants or (None,):
        values["variant"] = variant
        free = {name: values.get(name) for name, said in dimensions(spec).items() if isinstance(said, Range | tuple)}
        try:
            if recipe(free, spec) == asked:
                return free
        except (InputError, KeyError, TypeError):  # a recipe of another study
            continue
    return None


def _mask(values: Mapping[str, Any], spec: StudySpec) -> Mask:
    return Mask(
        importance=values["mask_importance"],
        sparsity={stage: values[f"sparsity.{stage}"] for stage in spec.space.sparsity},
        global_sparsity=values.get("global_sparsity"),
        gradual=values["masking"] == "gradual",
        **fields_of(spec.mask),
    )


def grid(spec: StudySpec) -> list[dict[str, Any]]:
    """Every combination of the choices, in the order of the study file."""
    names, choices = [], []
    for name, dimension in dimensions(spec).items():
        if isinstance(dimension, Range | tuple):
            names.append(name)
            choices.append(dimension.values if isinstance(dimension, Range) else dimension)
    return [dict(zip(names, point, strict=True)) for point in itertools.product(*choices)]

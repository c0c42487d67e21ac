"""The section [space] of a study file: what trials sample."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from pruner.network.structure import STAGES
from pruner.recipe import IMPORTANCES, MASK_IMPORTANCES, SPREADS, TOLERANCES, WEIGHT_STAGES
from search.study.section import MOST_RATE, FileName, Section, nearest
from search.study.text import DENSE

_MOST_STEPS = 100_000


class Range(Section):
    """A parameter sampled from an interval: `{ low = 0.0, high = 0.8 }`."""

    low: float
    high: float
    step: float | None = None
    log: bool = False

    @property
    def values(self) -> tuple[float, ...]:
        """With a step: what can be sampled."""
        low, high, step = self._decimals()
        return tuple(float(low + place * step) for place in range(int((high - low) // step) + 1))

    def _decimals(self) -> tuple[Decimal, Decimal, Decimal]:
        """As the file writes them, and Optuna takes them: 0.1 does divide 0.2 ... 0.6."""
        return Decimal(str(self.low)), Decimal(str(self.high)), Decimal(str(self.step))

    @model_validator(mode="after")
    def _check(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low:.10g} must be below high = {self.high:.10g}")
        if self.log and self.low <= 0:
            raise ValueError("a log range needs low > 0")
        if self.step is not None:
            self._check_step(self.step)
        return self

    def _check_step(self, step: float) -> None:
        """Refuse a step that Optuna would lower `high` for, in silence."""
        span = f"{self.low!r} ... {self.high!r}"
        if self.log:
            raise ValueError("a range has a step or is logarithmic, not both")
        if step <= 0:
            raise ValueError(f"step must be above 0, not {step!r}")
        if (self.high - self.low) / step > _MOST_STEPS:
            raise ValueError(f"step {step!r} makes more than {_MOST_STEPS:,} values of {span}; leave it out")
        low, high, exact = self._decimals()
        if (high - low) % exact == 0:
            return
        tried = self.values
        what = "is larger than" if len(tried) == 1 else "does not divide"
        listed = [repr(value) for value in tried]
        if len(listed) > 6:
            listed[3:-1] = ["..."]
        another = "give a smaller step" if len(tried) == 1 else f"give high = {tried[-1]!r} or another step"
        raise ValueError(f"step {step!r} {what} {span}; it would try {', '.join(listed)}; {another}")


def _kind(value: Any) -> str:
    if isinstance(value, dict | Range):
        return "range"
    return "choices" if isinstance(value, list | tuple) else "value"


def _different(choices: tuple[Any, ...]) -> tuple[Any, ...]:
    if not choices:
        raise ValueError("an empty list: give one choice or more")
    seen = set()
    for choice in choices:
        if choice in seen:
            raise ValueError(f"{choice!r} is listed twice")
        seen.add(choice)
    return choices


_Choices = Annotated[tuple[float, ...], AfterValidator(_different)]
_NameChoices = Annotated[tuple[FileName, ...], AfterValidator(_different)]
Dimension = Annotated[
    Annotated[float, Tag("value")] | Annotated[_Choices, Tag("choices")] | Annotated[Range, Tag("range")],
    Discriminator(_kind),
]
"""A fixed value, a list to choose from, or a range."""
NameDimension = Annotated[
    Annotated[FileName, Tag("value")] | Annotated[_NameChoices, Tag("choices")], Discriminator(_kind)
]

_SwitchChoices = Annotated[tuple[bool, ...], AfterValidator(_different)]
SwitchDimension = Annotated[
    Annotated[bool, Tag("value")] | Annotated[_SwitchChoices, Tag("choices")], Discriminator(_kind)
]


def _ends(dimension: Any) -> tuple[float, ...]:
    if isinstance(dimension, Range):
        return (dimension.low, dimension.high)
    return dimension if isinstance(dimension, tuple) else (dimension,)


def _check_ends(where: str, dimension: Any, most: float) -> None:
    for end in _ends(dimension):
        if not 0 < end <= most:
            raise ValueError(f"{where}: must be above 0 and at most {most:g}, not {end:g}")


class Space(Section):
    """What is sampled. Cuts are fractions of channels; a stage that is not named is not cut."""

    parent: NameDimension = DENSE
    """The network that is cut: `dense`, a finished trial of another study in the same folder of runs, as
    `STUDY/NUMBER`, or a .pth: a path that begins at the study file's folder, as that of `extends` does."""
    importance: NameDimension = "l2"
    learning_rate: Dimension = 0.01
    cut: dict[str, Dimension] = Field(default_factory=dict)
    """Stage -> cut of its hidden widths, and of its output width too unless `output_cut` is given."""
    output_cut: dict[str, Dimension] | None = None
    global_cut: Dimension | None = None
    target_mflops: Dimension | None = None
    """Millions of operations instead of cuts: the widths are chosen for it."""
    spread: NameDimension = "exchange"
    """How: `uniform`, `error` or `exchange`; see `pruner.recipe.Prune`."""
    tolerance: dict[str, Dimension] = Field(default_factory=dict)
    """Stage, or `output` -> how much more error is tolerated there when a target is spread."""
    repair: SwitchDimension = False
    """Re-fit the layers that read what is cut, in closed form, before any training."""
    sparsity: dict[str, Dimension] = Field(default_factory=dict)
    """Stage (also stem, classifier), or a layer's own name as `prune-search scan` writes it -> fraction of its weights
    that becomes zero."""
    global_sparsity: Dimension | None = None
    """The same for the whole network, all weights competing."""
    mask_importance: NameDimension = "magnitude"
    masking: NameDimension = "one-shot"
    """`one-shot`, or `gradual`: while the network is trained."""

    @property
    def masks(self) -> bool:
        """Do trials make weights zero?"""
        return bool(self.sparsity) or self.global_sparsity is not None

    def dimensions(self) -> dict[str, Any]:
        """Parameter name -> what the study file says of it (a value, a tuple of choices, a Range), in a fixed order."""
        found: dict[str, Any] = {
            "parent": self.parent,
            "importance": self.importance,
            "learning_rate": self.learning_rate,
        }
        if self.global_cut is not None:
            found["global_cut"] = self.global_cut
        if self.target_mflops is not None:
            found |= {"target_mflops": self.target_mflops, "spread": self.spread}
            found |= {f"tolerance.{stage}": value for stage, value in self.tolerance.items()}
        found["repair"] = self.repair
        found |= {f"cut.{stage}": value for stage, value in self.cut.items()}
        found |= {f"output_cut.{stage}": value for stage, value in (self.output_cut or {}).items()}
        if self.masks:
            found |= {"mask_importance": self.mask_importance, "masking": self.masking}
            found |= {f"sparsity.{stage}": value for stage, value in self.sparsity.items()}
            if self.global_sparsity is not None:
                found["global_sparsity"] = self.global_sparsity
        return found

    @model_validator(mode="after")
    def _check(self) -> Space:
        for key, names, known in (
            ("importance", self.importance, IMPORTANCES),
            ("mask_importance", self.mask_importance, MASK_IMPORTANCES),
            ("spread", self.spread, SPREADS),
            ("masking", self.masking, ("one-shot", "gradual")),
        ):
            for name in names if isinstance(names, tuple) else (names,):
                if name not in known:
                    raise ValueError(f"{key}: {name!r} is not one of {', '.join(known)}")
        if self.global_sparsity is not None and self.sparsity:
            raise ValueError("give either global_sparsity or sparsities by stage, not both")
        for stage, dimension in (*self.sparsity.items(), ("", self.global_sparsity or 0.0)):
            if stage and stage not in WEIGHT_STAGES and not stage.endswith(".weight"):
                raise ValueError(f"sparsity.{stage}: unknown stage{nearest(stage, list(WEIGHT_STAGES))}")
            if not all(0 <= end <= 1 for end in _ends(dimension)):
                where = f"sparsity.{stage}" if stage else "global_sparsity"
                raise ValueError(f"{where}: a sparsity is a fraction of weights in [0, 1]")
        if self.global_cut is not None and (self.cut or self.output_cut):
            raise ValueError("give either global_cut or cuts by stage, not both")
        if self.target_mflops is not None:
            if self.cut or self.output_cut or self.global_cut is not None:
                raise ValueError("give either target_mflops or cuts, not both")
            _check_ends("target_mflops", self.target_mflops, 1e6)
        for name, dimension in self.tolerance.items():
            if name not in TOLERANCES:
                raise ValueError(f"tolerance.{name}: unknown stage{nearest(name, list(TOLERANCES))}")
            if self.target_mflops is None:
                raise ValueError(f"tolerance.{name}: only says how target_mflops is spread, which is not given")
            _check_ends(f"tolerance.{name}", dimension, 1e6)
        cuts: list[tuple[str, Any]] = [("global_cut", self.global_cut)] if self.global_cut is not None else []
        for key, by_stage, stages in (("cut", self.cut, STAGES), ("output_cut", self.output_cut or {}, STAGES[:-1])):
            for stage, dimension in by_stage.items():
                if stage not in stages:
                    raise ValueError(f"{key}.{stage}: unknown stage{nearest(stage, list(stages))}")
                cuts.append((f"{key}.{stage}", dimension))
        for where, dimension in cuts:
            for end in _ends(dimension):
                if not 0 <= end < 1:
                    raise ValueError(f"{where}: a cut is a fraction of channels in [0, 1), not {end:g}")
        _check_ends("learning_rate", self.learning_rate, MOST_RATE)
        return self

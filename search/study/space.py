"""The section [space] of a study file: what trials sample."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator
from typing_extensions import TypeAliasType

from pruner.recipe import Allocation, Importance, Mask, MaskImportance, OutputStage, Prune, ScaledStage, Stage
from pruner.schema import Factor, MFlops, Rate, Ratio, Share, one_of
from search.study.section import FileName, Section
from search.study.text import DENSE

_MOST_STEPS = 100_000


T = TypeVar("T")


class Range(Section, Generic[T]):
    """A parameter sampled from an interval: `{ low = 0.0, high = 0.8 }`."""

    low: T
    high: T
    step: float | None = None
    log: bool = False

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends, as numbers."""
        return float(self.low), float(self.high)  # type: ignore[arg-type]

    @property
    def values(self) -> tuple[float, ...]:
        """All values that can be sampled; needs a step."""
        low, high, step = self._decimals()
        return tuple(float(low + place * step) for place in range(int((high - low) // step) + 1))

    def _decimals(self) -> tuple[Decimal, Decimal, Decimal]:
        """Low, high and step as the file writes them and Optuna takes them: 0.1 does divide 0.2 ... 0.6."""
        return Decimal(str(self.low)), Decimal(str(self.high)), Decimal(str(self.step))

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.ends
        if not low < high:
            raise ValueError(f"low = {low:.10g} must be below high = {high:.10g}")
        if self.log and low <= 0:
            raise ValueError("a log range needs low > 0")
        if self.step is not None:
            self._check_step(self.step)
        return self

    def _check_step(self, step: float) -> None:
        """Refuse a step for which Optuna would silently lower `high`."""
        low, high = self.ends
        span = f"{low!r} ... {high!r}"
        if self.log:
            raise ValueError("a range has a step or is logarithmic, not both")
        if step <= 0:
            raise ValueError(f"step must be above 0, not {step!r}")
        if (high - low) / step > _MOST_STEPS:
            raise ValueError(f"step {step!r} makes more than {_MOST_STEPS:,} values of {span}; leave it out")
        first, last, exact = self._decimals()
        if (last - first) % exact == 0:
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


Choice = TypeAliasType(
    "Choice",
    Annotated[
        Annotated[T, Tag("value")] | Annotated[tuple[T, ...], AfterValidator(_different), Tag("choices")],
        Discriminator(_kind),
    ],
    type_params=(T,),
)
"""A fixed value, or a list to choose from."""
Dimension = TypeAliasType(
    "Dimension",
    Annotated[
        Annotated[T, Tag("value")]
        | Annotated[tuple[T, ...], AfterValidator(_different), Tag("choices")]
        | Annotated[Range[T], Tag("range")],
        Discriminator(_kind),
    ],
    type_params=(T,),
)
"""A fixed value, a list to choose from, or a range."""
Masking = Annotated[str, one_of(("one-shot", "gradual"))]


def first_of(dimension: Any) -> Any:
    """One of the values that a dimension can take."""
    if isinstance(dimension, Range):
        return dimension.low
    return dimension[0] if isinstance(dimension, tuple) else dimension


class Space(Section):
    """What is sampled. Ratios are fractions of channels; a stage that is not named keeps all its channels."""

    parent: Choice[FileName] = DENSE
    """The network that is pruned: `dense`, a finished trial of another study in the same folder of runs, as
    `STUDY/NUMBER`, or the path of a .pth, relative to the study file's folder, like that of `extends`."""
    importance: Choice[Importance] = "l2"
    """How channels are ranked."""
    learning_rate: Dimension[Rate] = 0.01
    """The peak of the learning-rate schedule."""
    pruning_ratio: dict[Stage, Dimension[Ratio]] = Field(default_factory=dict)
    """Stage -> pruning ratio of its hidden widths, and of its output width too unless `output_pruning_ratio` is
    given."""
    output_pruning_ratio: dict[OutputStage, Dimension[Ratio]] | None = None
    """Stage -> pruning ratio of its output width."""
    global_pruning_ratio: Dimension[Ratio] | None = None
    """One ratio for the whole network instead: channels compete across layers."""
    target_mflops: Dimension[MFlops] | None = None
    """Millions of operations instead of ratios: the widths are allocated to meet it."""
    allocation: Choice[Allocation] = "lagrangian"
    """How the widths are allocated: `uniform`, `equal_error` or `lagrangian`; see `pruner.recipe.Prune`."""
    error_scale: dict[ScaledStage, Dimension[Factor]] = Field(default_factory=dict)
    """Stage, or `output` -> how much more error is tolerated there when a target is allocated."""
    reconstruct: Choice[bool] = False
    """Refit the layers that read pruned channels, in closed form, before any training."""
    sparsity: dict[str, Dimension[Share]] = Field(default_factory=dict)
    """Stage (also stem, classifier), or a layer's own name as `prune-search sensitivity` writes it -> fraction of its
    weights that becomes zero."""
    global_sparsity: Dimension[Share] | None = None
    """One sparsity for the whole network instead: all weights compete."""
    mask_importance: Choice[MaskImportance] = "magnitude"
    """How weights are ranked."""
    masking: Choice[Masking] = "one-shot"
    """`one-shot`: before training; `gradual`: during training."""

    @property
    def masks(self) -> bool:
        """Do trials make weights zero?"""
        return bool(self.sparsity) or self.global_sparsity is not None

    def dimensions(self) -> dict[str, Any]:
        """Parameter name -> its entry in the study file (a value, a tuple of choices, a Range), in a fixed order."""
        found: dict[str, Any] = {
            "parent": self.parent,
            "importance": self.importance,
            "learning_rate": self.learning_rate,
        }
        if self.global_pruning_ratio is not None:
            found["global_pruning_ratio"] = self.global_pruning_ratio
        if self.target_mflops is not None:
            found |= {"target_mflops": self.target_mflops, "allocation": self.allocation}
            found |= {f"error_scale.{stage}": value for stage, value in self.error_scale.items()}
        found["reconstruct"] = self.reconstruct
        found |= {f"pruning_ratio.{stage}": value for stage, value in self.pruning_ratio.items()}
        found |= {f"output_pruning_ratio.{stage}": value for stage, value in (self.output_pruning_ratio or {}).items()}
        if self.masks:
            found |= {"mask_importance": self.mask_importance, "masking": self.masking}
            found |= {f"sparsity.{stage}": value for stage, value in self.sparsity.items()}
            if self.global_sparsity is not None:
                found["global_sparsity"] = self.global_sparsity
        return found

    @model_validator(mode="after")
    def _check(self) -> Space:
        if self.error_scale and self.target_mflops is None:
            raise ValueError("error_scale: needs target_mflops, whose allocation it changes")
        # Settings that no recipe can combine cannot be combined here.
        Prune(
            pruning_ratio={stage: first_of(value) for stage, value in self.pruning_ratio.items()},
            output_pruning_ratio={stage: first_of(value) for stage, value in (self.output_pruning_ratio or {}).items()},
            global_pruning_ratio=first_of(self.global_pruning_ratio),
            target_mflops=first_of(self.target_mflops),
        )
        Mask(
            sparsity={stage: first_of(value) for stage, value in self.sparsity.items()},
            global_sparsity=first_of(self.global_sparsity),
        )
        return self

"""What to do to one model, as plain values: what is cut, what becomes zero, how it is trained. No torch in here."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pruner.errors import InputError, check_name
from pruner.network.structure import MODULES, STAGES
from pruner.tune import Phase, Rounds, Tune

IMPORTANCES = ("l1", "l2", "taylor", "hessian", "lamp", "fpgm", "bn_scale", "reconstruction", "random")
MASK_IMPORTANCES = ("magnitude", "taylor")
WEIGHT_STAGES = ("stem", *STAGES, "classifier")
"""Where weights are that masks can make zero."""
SPREADS = ("uniform", "error", "exchange")
"""How a target in operations is spread over the layers, see `Prune.spread`."""
TOLERANCES = (*STAGES, "output")
NORMALIZERS = ("none", "mean", "max", "sum")


def check_cut(where: str, cut: float) -> None:
    """Raise InputError unless `cut`, a fraction of channels, lies in [0, 1)."""
    if not 0.0 <= cut < 1.0:
        raise InputError(f"{where}: a cut is a fraction of channels in [0, 1), not {cut:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune:
    """Which share of the channels goes, and how the channels are ranked."""

    importance: str = "l2"
    """How channels are ranked: one of IMPORTANCES."""
    cut: Mapping[str, float] = field(default_factory=dict)
    """Stage -> fraction of its hidden channels (the head: of its channels) to cut. A stage not named is not cut."""
    output_cut: Mapping[str, float] = field(default_factory=dict)
    """Stage -> fraction of its output channels to cut; the head has none."""
    global_cut: float | None = None
    """One fraction for the whole network instead: channels compete across layers."""
    target_mflops: float | None = None
    """Millions of operations that the network may have instead: the widths are chosen for it."""
    spread: str = "exchange"
    """How that is done. uniform: the same fraction of every group; by the removal curves of `pruner.channels.obs`,
    error: as much of each group as one tolerated error allows; exchange: as the same error for an operation saved
    does."""
    tolerance: Mapping[str, float] = field(default_factory=dict)
    """Stage, or `output` for all stages' output widths -> how much more error is tolerated there (1: as elsewhere)."""
    repair: bool = False
    """Re-fit the layers that read what is cut (`pruner.channels.reconstruct`)."""
    normalizer: str = "mean"
    """What a layer's scores are divided by before they compete across layers: one of NORMALIZERS."""
    minimum: int = 1
    """No group keeps fewer channels than this."""
    multiple: int = 1
    """Kept widths are rounded to a multiple of this."""
    ignore: tuple[str, ...] = ()
    """What is left alone: a stage, a block (`features.5`), `residual` (every block with a residual connection)
    or `classifier`."""

    def __post_init__(self) -> None:
        check_name("importance", self.importance, IMPORTANCES)
        check_name("normalizer", self.normalizer, NORMALIZERS)
        for key, cuts, known in (("cut", self.cut, STAGES), ("output_cut", self.output_cut, STAGES[:-1])):
            for stage, cut in cuts.items():
                check_name(key, stage, known)
                check_cut(f"{key}.{stage}", cut)
        if self.global_cut is not None:
            check_cut("global_cut", self.global_cut)
            if self.cut or self.output_cut:
                raise InputError("global_cut: give either one global cut or cuts per stage, not both")
        check_name("spread", self.spread, SPREADS)
        if self.target_mflops is not None:
            if not 0 < self.target_mflops < math.inf:
                raise InputError(f"target_mflops: {self.target_mflops:g} is not above 0 and finite")
            if self.cut or self.output_cut or self.global_cut is not None:
                raise InputError("target_mflops: give either a target or cuts, not both")
        for name, factor in self.tolerance.items():
            check_name("tolerance", name, TOLERANCES)
            if not 0 < factor < math.inf:
                raise InputError(f"tolerance.{name}: {factor:g} is not above 0 and finite")
        for name in self.ignore:
            if name not in (*STAGES, *MODULES, "residual"):
                raise InputError(
                    f"ignore: {name!r} is not a stage (stage1 ... head), a block (features.5), residual or classifier"
                )
        if self.minimum < 1 or self.multiple < 1:
            raise InputError("minimum and multiple are numbers of channels, 1 or more")


def check_sparsity(where: str, sparsity: float) -> None:
    """Raise InputError unless `sparsity`, a fraction of weights, lies in [0, 1]."""
    if not 0.0 <= sparsity <= 1.0:
        raise InputError(f"{where}: a sparsity is a fraction of weights in [0, 1], not {sparsity:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mask:
    """Which share of the weights becomes zero, how they are ranked, and whether at once or on the way."""

    importance: str = "magnitude"
    """How weights are ranked: one of MASK_IMPORTANCES."""
    sparsity: Mapping[str, float] = field(default_factory=dict)
    """Stage (one of WEIGHT_STAGES), or a weight's own name -> fraction of its weights that becomes zero."""
    uniform: float = 0.0
    """The fraction for every layer that `sparsity` does not name."""
    global_sparsity: float | None = None
    """One fraction for the whole network instead: all weights compete."""
    gradual: bool = False
    """Get there during training, by a cubic schedule, instead of before it."""
    ramp: float = 0.6
    """Gradual: the share of all steps after which the final sparsity is reached."""
    updates: int = 10
    """Gradual: in so many steps."""
    rounds: int = 1
    """Not gradual: in so many steps before training, on the same schedule; with repair, each ranks what the last re-fit
    left."""

    def __post_init__(self) -> None:
        check_name("importance", self.importance, MASK_IMPORTANCES)
        for name, sparsity in (*self.sparsity.items(), ("uniform", self.uniform)):
            check_sparsity(f"sparsity.{name}", sparsity)
            if not name.endswith(".weight") and name != "uniform":
                check_name("sparsity", name, WEIGHT_STAGES)
        if self.global_sparsity is not None:
            check_sparsity("global_sparsity", self.global_sparsity)
            if self.sparsity or self.uniform:
                raise InputError("global_sparsity: give either one for all weights or sparsities by stage, not both")
        if not 0 < self.ramp <= 1 or self.updates < 1 or self.rounds < 1:
            raise InputError("ramp is in (0, 1], updates and rounds are 1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that is done to one network: the cut, the masks, and the training after them."""

    prune: Prune
    tune: Tune
    parent: str = "dense"
    """The network that is cut (`search.trial.parent`)."""
    mask: Mask | None = None
    """What single weights become zero after the cut, if any."""
    rounds: Rounds | None = None
    """None: one cut, straight to the plan."""

    @property
    def round_tune(self) -> Tune:
        """The training after every cut but the last."""
        assert self.rounds is not None
        return dataclasses.replace(self.tune, phases=(self.rounds.phase,), average=0.0, reestimate=0)

    def as_json(self) -> dict[str, Any]:
        """A JSON-ready form; `from_json` gives an equal recipe back."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Recipe:
        """The recipe that `as_json` wrote."""
        prune = dict(data["prune"], ignore=tuple(data["prune"]["ignore"]))
        mask = Mask(**data["mask"]) if "mask" in data else None
        phases = tuple(Phase(**phase) for phase in data["tune"].get("phases", ()))
        tune = Tune(**{**data["tune"], "phases": phases})
        rounds = None
        if "rounds" in data:
            kept = data["rounds"]
            rounds = Rounds(count=kept["count"], mflops=tuple(kept["mflops"]), phase=Phase(**kept["phase"]))
        return Recipe(prune=Prune(**prune), tune=tune, parent=data.get("parent", "dense"), mask=mask, rounds=rounds)

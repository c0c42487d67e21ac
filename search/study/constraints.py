"""The section [constraints] of a study file: what a network must meet, and by how much one fails to."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, model_validator

from pruner.schema import MFlops, Share
from search.study.section import Section

BYTES_PER_PARAM = 4
"""Bytes of a 32-bit float. The course counts a sparse network's size as that of its nonzero parameters."""


class ConstraintsSection(Section):
    """Constraints on a network. A plan that violates one on its size or latency is skipped before any training."""

    max_mflops: MFlops | None = None
    min_mflops: float | None = Field(None, ge=0, le=1e6)
    max_mflops_ratio: Share | None = None
    """Its MFLOPs as a share of the dense network's."""
    max_size_mb: float | None = Field(None, gt=0, le=1e6)
    """Its parameters at 32 bits each, in millions of bytes."""
    max_latency_ms: float | None = Field(None, gt=0, le=1e6)
    min_accuracy: Share | None = None
    max_accuracy_drop: Share | None = None
    """How far its accuracy on the holdout may be below the dense network's: 0.01 is one point."""

    @model_validator(mode="after")
    def _check(self) -> ConstraintsSection:
        least, most = self.min_mflops, self.max_mflops
        if least is not None and most is not None and least > most:
            raise ValueError(f"min_mflops = {least:g} is above max_mflops = {most:g}: nothing meets both")
        return self

    def limits(self, dense_mflops: float, dense_accuracy: float | None) -> dict[str, float]:
        """Constraint -> its limit, with those relative to the dense network as numbers; of two the stricter.

        `dense_accuracy` is needed for `max_accuracy_drop` only.
        """
        ratio, drop = self.max_mflops_ratio, self.max_accuracy_drop
        mflops = [self.max_mflops, None if ratio is None else ratio * dense_mflops]
        accuracy = [self.min_accuracy, None if drop is None or dense_accuracy is None else dense_accuracy - drop]
        found = {
            "max_mflops": min((one for one in mflops if one is not None), default=None),
            "min_mflops": self.min_mflops,
            "max_size_mb": self.max_size_mb,
            "max_latency_ms": self.max_latency_ms,
            "min_accuracy": max((one for one in accuracy if one is not None), default=None),
        }
        return {name: limit for name, limit in found.items() if limit is not None}


def size_mb(params: int) -> float:
    """The size of so many parameters at 32 bits each, in millions of bytes."""
    return BYTES_PER_PARAM * params / 1e6


def excesses(limits: Mapping[str, float], values: Mapping[str, float | None]) -> dict[str, float]:
    """Constraint -> by how much it is broken (0 or less: it is met), for those whose value is known.

    `values`: mflops, size_mb, latency_ms, accuracy, each of them maybe None or absent.
    """
    found = {}
    for name, limit in limits.items():
        side, _, what = name.partition("_")
        value = values.get(what)
        if value is not None:
            found[name] = value - limit if side == "max" else limit - value
    return found

"""Predict a network's trained accuracy from its untrained accuracy, by a line through networks that were trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np
from pydantic import field_validator

from search.study.score import ScoreRule
from search.study.section import Observation, Section

FEWEST = 4
"""The fewest networks that a predictor can be fitted to."""
_PRIOR_SLOPE = 1.0
"""Prior standard deviation of each slope, in logits per standard deviation of its input."""
_PRIOR_NOISE = 0.1
"""Prior distance of networks from the line, in logits; it weighs as much as one network."""
_LEAST_SPREAD = 0.1
"""Lower bound on the standard deviation of the untrained accuracy (logits) and of the operations (logarithm)."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """A predicted accuracy, in [0, 1]."""

    accuracy: float
    std: float
    """Its uncertainty, as a standard deviation."""

    def score(self, rule: ScoreRule, mflops: float) -> float:
        """The expected score, given the uncertainty. Accuracy above `rule.accuracy_full` does not make up for accuracy
        below it."""
        missing = rule.accuracy_full - self.accuracy
        if self.std > 0:
            normal = NormalDist(missing, self.std)  # the mean of its positive part:
            missing = missing * (1 - normal.cdf(0)) + self.std**2 * normal.pdf(0)
        return rule(mflops, rule.accuracy_full - max(0.0, missing))


class Predictor(Section):
    """The section [predictor] of a study file: networks whose accuracy is known both untrained and trained.

    Bayesian linear regression of the final accuracy's logit on the logit of the untrained accuracy and the logarithm
    of the operations (Bishop 2006, section 3.3, with an inverse gamma for the noise).
    """

    observations: tuple[Observation, ...] = ()
    """[MFLOPs, untrained accuracy, trained accuracy] of each network, as `prune-search predictor` prints them."""

    @field_validator("observations")
    @classmethod
    def _check(cls, observations: tuple[Observation, ...]) -> tuple[Observation, ...]:
        if 0 < len(observations) < FEWEST:
            raise ValueError(f"a line through {len(observations)} networks says nothing; give {FEWEST} or more")
        return observations

    @cached_property
    def _fit(self) -> _Fit:
        return _Fit.of(self.observations)

    def __call__(self, mflops: float, untrained: float) -> Prediction:
        """Predict the trained accuracy of a network with this many MFLOPs and this untrained accuracy."""
        return self._fit.predict(mflops, untrained)

    def left_out(self) -> list[Prediction]:
        """For each observation, what a line through the others predicts."""
        rest = [self.observations[:i] + self.observations[i + 1 :] for i in range(len(self.observations))]
        return [_Fit.of(others).predict(*self.observations[i][:2]) for i, others in enumerate(rest)]


@dataclass(frozen=True)
class _Fit:
    center: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    """(3): the mean logit, then slopes per standard deviation of the untrained accuracy and of the operations."""
    covariance: np.ndarray
    """(3, 3): of the coefficients, per unit of the noise's variance."""
    noise: float
    """The noise's variance, in squared logits."""

    @staticmethod
    def of(observations: Sequence[Observation]) -> _Fit:
        inputs = np.array([_inputs(mflops, untrained) for mflops, untrained, _ in observations])
        outputs = np.array([_logit(final) for *_, final in observations])
        center, scale = inputs.mean(0), np.maximum(inputs.std(0), _LEAST_SPREAD)
        design = np.column_stack([np.ones(len(observations)), (inputs - center) / scale])
        residual = outputs - outputs.mean()
        prior = np.diag([0.0, *[(_PRIOR_NOISE / _PRIOR_SLOPE) ** 2] * 2])
        covariance = np.linalg.inv(design.T @ design + prior)
        coefficients = covariance @ design.T @ residual
        left = residual - design @ coefficients
        freedom = max(1, len(observations) - design.shape[1])
        noise = (float(left @ left) + _PRIOR_NOISE**2) / (freedom + 1)
        coefficients[0] += outputs.mean()
        return _Fit(center, scale, coefficients, covariance, noise)

    def predict(self, mflops: float, untrained: float) -> Prediction:
        row = np.concatenate([[1.0], (_inputs(mflops, untrained) - self.center) / self.scale])
        accuracy = 1 / (1 + math.exp(-float(row @ self.coefficients)))
        std = math.sqrt(self.noise * (1 + float(row @ self.covariance @ row)))
        return Prediction(accuracy, std * accuracy * (1 - accuracy))


def _inputs(mflops: float, untrained: float) -> np.ndarray:
    return np.array([_logit(untrained), math.log(mflops)])


def _logit(accuracy: float) -> float:
    inside = min(max(accuracy, 0.001), 0.999)
    return math.log(inside / (1 - inside))


def rank_agreement(observations: Sequence[Observation], *, band: float = 0.2) -> list[tuple[float, int, float]]:
    """(middle of the band in MFLOPs, networks in it, Spearman's rho of untrained and trained accuracy), for bands of
    networks whose operations lie within `band` of the middle.

    Each network is in one band. Bands with fewer than 4 networks, or with equal accuracies only, are left out.
    """
    from scipy.stats import spearmanr  # takes a second to load

    left = sorted(observations)
    found = []
    while left:
        edge = left[0][0] * (1 + band) / (1 - band)
        members = [one for one in left if one[0] <= edge]
        left = left[len(members) :]
        untrained, final = [one[1] for one in members], [one[2] for one in members]
        if len(members) >= FEWEST and len(set(untrained)) > 1 and len(set(final)) > 1:
            rho = spearmanr(untrained, final).statistic
            found.append(((members[0][0] + members[-1][0]) / 2, len(members), float(rho)))
    return found

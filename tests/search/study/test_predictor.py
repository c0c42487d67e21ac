"""Forecasts of a training's end, and what an uncertain one is worth."""

from __future__ import annotations

import numpy as np
import pytest

from search.study.predictor import Prediction, Predictor, rank_agreement
from search.study.score import ScoreRule


def networks(count: int, noise: float, seed: int = 0) -> tuple[tuple[float, float, float], ...]:
    """Made-up ones whose final accuracy's logit is a line in the logit seen and in the logarithm of the operations."""
    random = np.random.default_rng(seed)
    mflops, seen = random.uniform(15, 50, count), random.uniform(0.2, 0.8, count)
    logit = 1.5 + 0.4 * np.log(seen / (1 - seen)) + 0.5 * np.log(mflops / 30) + noise * random.standard_normal(count)
    return tuple(zip(mflops.tolist(), seen.tolist(), (1 / (1 + np.exp(-logit))).tolist(), strict=True))


def test_a_predictor_finds_the_line_and_knows_how_far_it_may_be_off() -> None:
    exact = Predictor(observations=networks(30, 0.0))
    for mflops, seen, final in networks(20, 0.0, seed=1):
        assert exact(mflops, seen).accuracy == pytest.approx(final, abs=0.01)
    noisy = Predictor(observations=networks(30, 0.3))
    new = networks(400, 0.3, seed=2)
    inside = [abs(noisy(mflops, seen).accuracy - final) <= 2 * noisy(mflops, seen).std for mflops, seen, final in new]
    assert 0.9 < np.mean(inside) < 0.99
    near, far = noisy(30, 0.5), noisy(1000, 0.5)
    per_logit = [p.std / (p.accuracy * (1 - p.accuracy)) for p in (near, far)]
    assert per_logit[1] > 1.3 * per_logit[0], "far from what is known it says so"
    few = Predictor(observations=networks(30, 0.3)[:4])
    assert few(30, 0.5).std > noisy(30, 0.5).std


def test_an_uncertain_accuracy_is_worth_less_near_the_clamp() -> None:
    rule = ScoreRule()
    assert Prediction(0.9, 0.0).score(rule, 40) == rule(40, 0.9)
    random = np.random.default_rng(0)
    for accuracy, std in ((0.92, 0.01), (0.9, 0.02), (0.95, 0.01)):
        drawn = np.mean([rule(40, value) for value in random.normal(accuracy, std, 20_000)])
        assert Prediction(accuracy, std).score(rule, 40) == pytest.approx(drawn, abs=0.1)
        assert Prediction(accuracy, std).score(rule, 40) <= rule(40, accuracy) + 1e-9


def test_ranks_are_compared_among_networks_of_similar_size() -> None:
    small = [(20 + i, 0.2 + i / 100, 0.8 + i / 100) for i in range(5)]
    large = [(45 + i, 0.5 + i / 100, 0.9 - i / 100) for i in range(4)]
    bands = rank_agreement([*large, *small, (100.0, 0.9, 0.95)])
    assert [(count, rho) for _, count, rho in bands] == [(5, pytest.approx(1)), (4, pytest.approx(-1))]
    assert 20 < bands[0][0] < 24 and 45 < bands[1][0] < 48

"""Numbers of study files: what is odd is refused in a line that names the key, or gives recipes."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution

from pruner.errors import InputError
from pruner.recipe import Recipe
from search.pipeline.parts import read_parts
from search.sampling.early_stopping import make_rule
from search.sampling.recipe import recipe
from search.sampling.samplers import draw
from search.study.space import Range


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("0", "step must be above 0, not 0.0"),
        ("-0.1", "step must be above 0, not -0.1"),
        ("nan", "step: input should be a finite number, not nan"),
        ("0.5", "step 0.5 is larger than 0.2 ... 0.6; it would try 0.2; give a smaller step"),
        ("0.15", "step 0.15 does not divide 0.2 ... 0.6; it would try 0.2, 0.35, 0.5; give high = 0.5 or another step"),
        ("0.03", "it would try 0.2, 0.23, 0.26, ..., 0.59; give high = 0.59"),
        ("1e-9", "step 1e-09 makes more than 100,000 values of 0.2 ... 0.6; leave it out"),
        ("0.1, log = true", "a step or is logarithmic, not both"),
    ],
)
def test_a_step_that_cannot_be_kept_to_is_refused_with_what_it_would_try(
    tmp_path: Path, step: str, message: str
) -> None:
    with pytest.raises(InputError) as caught:
        (tmp_path / "study.toml").write_text(
            f"trials = 3\n[space.pruning_ratio]\nstage4 = {{ low = 0.2, high = 0.6, step = {step} }}"
        )
        read_parts(tmp_path / "study.toml")
    assert "study.toml: space.pruning_ratio.stage4" in str(caught.value)
    assert message in str(caught.value)


@given(st.integers(-300, 300), st.integers(1, 9), st.integers(1, 40), st.sampled_from([1, 10, 100, 1000]))
def test_a_step_that_divides_in_decimals_is_taken_and_optuna_tries_the_same(
    low: int, step: int, count: int, scale: int
) -> None:
    found = Range[float](low=low / scale, high=(low + step * count) / scale, step=step / scale)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Optuna warns where it lowers `high`
        distribution = FloatDistribution(*found.ends, step=found.step)
    assert distribution.high == found.high
    assert found.values == tuple((low + step * place) / scale for place in range(count + 1))


EVERYTHING = """
trials = 3
timeout_hours = 2.0
target_score = 45.5
seed = 1
[data]
name = "digits"
resolution = 32
[space]
importance = ["l1", "l2"]
learning_rate = { low = 0.002, high = 0.01, log = true }
[space.pruning_ratio]
stage3 = { low = 0.1, high = 0.8, step = 0.1 }
stage6 = [0.25, 0.5]
head = 0.75
[prune]
min_channels = 4
[train]
epochs = 2
images_per_epoch = 64
weight_decay = 1e-4
grad_clip_norm = 1.0
ema_decay = 0.9
bn_recalibration_images = 64
[[train.phases]]
epochs = 1
lr_scale = 0.5
[iterative]
steps = 2
[score]
points = 40.0
[constraints]
max_mflops = 120
max_latency_ms = 20.5
[sampler]
max_concurrent = 3
[variants."one"]
train.momentum = 0.8
[[searches]]
name = "a"
[[searches]]
name = "b"
train_only = true
parents = 2
min_distance = 0.01
space.learning_rate = 0.02
train = { epochs = 1, warmup = 0.2 }
[[searches]]
name = "c"
trials = 4
space.pruning_ratio.head = 0.6
"""
NUMBERS = [match.span() for match in re.finditer(r"(?<== )[0-9][0-9.e-]*|(?<=[\[ ])0\.[0-9]+(?=[,\]])", EVERYTHING)]
ODD = [
    "nan", "-nan", "inf", "-inf", "1e400", "-1e400", "0", "-0.0", "0.0", "-1", "-0.5", "5e-324", "1e-300", "1e300",
    "1e18", "1_000_000_000_000", "9223372036854775807", "9223372036854775808", "1" + "0" * 400, "1.0", "2.5", "0.1",
    "0.3", "0.7", "1", "2", "true", "false", "'1'", "''", "[]", "{}", "[nan]", "[0.5, 0.5]",
    "{ low = 0.1, high = 0.3, step = 0.07 }", "{ low = 0.1, high = 0.1 }", "{ low = 1e-320, high = 0.5 }",
    "{ low = 5e-324, high = 0.5, log = true }", "2020-01-01",
]  # fmt: skip


def test_the_study_that_is_made_odd_below_is_valid(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(EVERYTHING)
    assert [one.name for one in read_parts(tmp_path / "study.toml")] == ["study.a", "study.b", "study.c"]
    assert len(NUMBERS) == 35


@settings(max_examples=250)
@given(
    places=st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=2, unique=True),
    odd=st.lists(st.sampled_from(ODD) | st.floats().map(repr) | st.integers().map(str), min_size=2, max_size=2),
)
def test_odd_numbers_are_refused_in_a_line_or_give_recipes(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, int]], odd: list[str]
) -> None:
    text = EVERYTHING
    for (begin, end), value in zip(sorted(places, reverse=True), odd, strict=False):
        text = text[:begin] + value + text[end:]
    path = tmp_path_factory.getbasetemp() / "odd.toml"
    path.write_text(text)
    try:
        found = read_parts(path)
    except InputError as refused:
        assert str(refused).startswith(str(path))
        assert "\n" not in str(refused)
        return
    for part in found:
        spec = part.study(["dense"])
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            made = recipe(draw(spec, 0, []).params, spec)
        assert Recipe.from_json(made.as_json()) == made
        make_rule(spec)
        spec.score(100, 0.5)

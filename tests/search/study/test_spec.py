"""Study files: strict, and every complaint is one line that helps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruner.errors import InputError
from pruner.recipe import Recipe
from repository import STUDIES
from search.pipeline.parts import read_parts
from search.sampling.recipe import grid, recipe
from search.sampling.samplers import budget, draw
from search.study.score import ScoreRule
from search.study.spec import StudySpec, differences, read_study


def read(tmp_path: Path, text: str) -> StudySpec:
    (tmp_path / "study.toml").write_text(text)
    return read_study(tmp_path / "study.toml")


@pytest.mark.parametrize("path", sorted(STUDIES.rglob("*.toml")), ids=lambda path: path.stem)
def test_every_study_that_is_shipped_is_valid_and_gives_recipes(path: Path) -> None:
    assert read_study(path).about
    parts = read_parts(path)
    assert parts[-1].whole == path.stem
    for part in parts:
        assert part.name.startswith(part.whole)
        spec = part.study(["dense"])
        assert budget(spec)
        made = recipe(draw(spec, 0, []).params, spec)
        assert Recipe.from_json(made.as_json()) == made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trails = 3", "trails: unknown key, did you mean trials?"),
        ("trials = 3\n[space]\nlerning_rate = 0.1", "space.lerning_rate: unknown key, did you mean learning_rate?"),
        (
            "trials = 3\n[space.pruning_ratio]\nstge3 = 0.1",
            "pruning_ratio.stge3: 'stge3' is unknown, did you mean stage3?",
        ),
        ("trials = 3\n[space.pruning_ratio]\nstage3 = { lo = 0, high = 1 }", "unknown key, did you mean low?"),
        (
            "trials = 3\n[space.pruning_ratio]\nstage3 = 1.0",
            "pruning_ratio.stage3: input should be less than 1, not 1.0",
        ),
        (
            "trials = 3\n[space.pruning_ratio]\nstage3 = [0.5, -0.1]",
            "pruning_ratio.stage3.1: input should be greater than or equal to 0, not -0.1",
        ),
        ("trials = 3\n[space.pruning_ratio]\nstage3 = { low = 0.5, high = 0.2 }", "low = 0.5 must be below high = 0.2"),
        ("trials = 3\n[space]\nimportance = ['l1', 'l3']", "space.importance.1: 'l3' is unknown, did you mean l2?"),
        (
            "trials = 3\n[space]\nglobal_pruning_ratio = 0.3\n[space.pruning_ratio]\nhead = 0.2",
            "space: global_pruning_ratio: give either one ratio for all or ratios by stage",
        ),
        ("trials = 3\n[train]\nepochs = '3'", "train.epochs: input should be a valid integer, not '3'"),
        ("trials = 3\n[train]\nepochs = -1", "train.epochs"),
        ("trials = 0", "trials"),
        ("", "trials: how many?"),
        ("trials = 3\nobjectives = ['speed']", "'speed' is not one of score, accuracy"),
        ("trials = 3\nobjectives = ['mflops', 'accuracy']\n[early_stopping]\nname = 'asha'", "several objectives"),
        ("trials = 3\n[early_stopping]\nname = 'ahsa'", "early_stopping.name"),
        ("trials = 3\n[prune]\nignored_layers = ['features.4', 'residuals']", "'residuals' is not a stage"),
        ("trials = [", "not TOML"),
        ("a = " + "[" * 5000, "not TOML"),
        ("trials = 1" + "0" * 5000, "not TOML"),
        ("trials = 1_000_000_000_000", "trials: input should be less than or equal to"),
        ("trials = true", "trials: input should be a valid integer, not True"),
        ("trials = 3.0", "trials: input should be a valid integer, not 3.0"),
        ("timeout_hours = nan", "hours: input should be a finite number, not nan"),
        ("timeout_hours = 1e400", "hours: input should be a finite number, not inf"),
        ("timeout_hours = 1" + "0" * 400, "hours: input should be a finite number, not 1000000"),
        ("trials = 3\ntarget_score = -inf", "target_score: input should be a finite number"),
        ("trials = 3\nseed = 9_223_372_036_854_775_808", "seed"),
        ("trials = 3\n[space]\nlearning_rate = [0.1, nan]", "space.learning_rate.1: input should be a finite number"),
        (
            "trials = 3\n[space]\nlearning_rate = { low = 0.1, high = inf }",
            "space.learning_rate.high: input should",
        ),
        ("trials = 3\n[space]\nlearning_rate = 0", "space.learning_rate: input should be greater than 0, not 0"),
        ("trials = 3\n[space]\nlearning_rate = true", "space.learning_rate: input should be a valid number, not True"),
        ("trials = 3\n[space]\nlearning_rate = [0.1, 0.2, 0.1]", "space.learning_rate: 0.1 is listed twice"),
        ("trials = 3\n[space]\nimportance = ['l1', 'l1']", "space.importance: 'l1' is listed twice"),
        ("trials = 3\n[space]\nreconstruct = []", "space.reconstruct: an empty list"),
        ("trials = 3\n[space]\ntarget_mflops = [-inf, 3]", "space.target_mflops.0: input should be a finite number"),
        ("trials = 3\n[space]\ntarget_mflops = 9\nerror_scale = { head = nan }", "space.error_scale.head"),
        ("trials = 3\n[space.pruning_ratio]\nhead = {}", "space.pruning_ratio.head.low: field required"),
        ("trials = 3\n[space.pruning_ratio]\nhead = { low = 0.2, high = 0.2 }", "low = 0.2 must be below high = 0.2"),
        ("trials = 3\n[score]\npoints = inf", "score.points: input should be a finite number"),
        ("trials = 3\n[score]\naccuracy_penalty = 0", "score.accuracy_penalty: input should be greater than 0, not 0"),
        ("trials = 3\n[score]\nmflops_worst = 10", "score: mflops_full = 45 must be below mflops_worst = 10"),
        (
            "trials = 3\n[predictor]\nobservations = [[1, 0.1, nan]]",
            "predictor.observations.0.2: input should be a finite number",
        ),
        ("trials = 3\n[constraints]\nmax_mflops = -1", "constraints.max_mflops"),
        ("trials = 3\n[constraints]\nmax_mflops = 9\nmin_mflops = 10", "constraints: min_mflops = 10 is above"),
        (
            "trials = 3\n[train]\nbatch_size = 1_000_000_000",
            "train.batch_size: input should be less than or equal to 100000",
        ),
        ("trials = 3\n[train]\nepochs = 10_000_000_000", "train.epochs"),
        ("trials = 3\n[train]\ngrad_clip_norm = nan", "train.grad_clip_norm: input should be a finite number"),
        ("trials = 3\n[train]\nimages_per_epoch = 1", "train: images_per_epoch: BatchNorm needs 2 images"),
        ("trials = 3\n[train]\nrandom_shift = 8\n[data]\nname = 'digits'", "train.random_shift: 8 is not below 8"),
        ("trials = 3\n[[train.phases]]\nlr_scale = inf", "train.phases.0.lr_scale: input should be a finite number"),
        ("trials = 3\n[latency]\nthreads = 1_000_000", "latency.threads"),
        ("trials = 3\n[iterative]\nmflops = [90, nan]", "iterative.mflops.1: input should be a finite number"),
        (
            "trials = 3\n[dense]\ncheckpoint = '~no-such-user/x.pth'",
            "no-such-user/x.pth': no such user",
        ),
        ('trials = 3\n[data]\nroot = "a\\u0000"', "data.root: a path has no NUL"),
        (
            "trials = 3\n[variants.a]\ntrain.grad_clip_norm = nan",
            "variants.a: train.grad_clip_norm: input should be a finite number",
        ),
        (
            "[sampler]\nname = 'grid'\n[space]\nglobal_pruning_ratio = { low = 0.1, high = 0.3 }",
            "space.global_pruning_ratio: a grid needs",
        ),
        (
            "[sampler]\nname = 'grid'\n[space.pruning_ratio]\n"
            + "".join(f"stage{n} = {{ low = 0, high = 0.9, step = 0.01 }}\n" for n in range(1, 8)),
            "space: a grid of 51,676,101,935,731 points",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert message in str(caught.value)
    assert "study.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_study(tmp_path / "none.toml")


def test_one_ratio_serves_hidden_and_output_widths_unless_they_are_told_apart(tmp_path: Path) -> None:
    both = recipe({}, read(tmp_path, "trials = 1\n[space.pruning_ratio]\nstage2 = 0.5\nhead = 0.3"))
    assert (both.prune.pruning_ratio, both.prune.output_pruning_ratio) == (
        {"stage2": 0.5, "head": 0.3},
        {"stage2": 0.5},
    )
    text = "trials = 1\n[space.pruning_ratio]\nstage2 = 0.5\n[space.output_pruning_ratio]\nstage4 = 0.1"
    apart = recipe({}, read(tmp_path, text))
    assert (apart.prune.pruning_ratio, apart.prune.output_pruning_ratio) == ({"stage2": 0.5}, {"stage4": 0.1})


def test_a_grid_is_every_combination_in_the_files_order(tmp_path: Path) -> None:
    space = "[space]\nimportance = ['l2', 'l1']\nglobal_pruning_ratio = { low = 0.1, high = 0.3, step = 0.1 }"
    text = f"[sampler]\nname = 'grid'\n{space}"
    spec = read(tmp_path, text)
    points = grid(spec)
    assert budget(spec) == len(points) == 6
    assert [point["importance"] for point in points] == ["l2"] * 3 + ["l1"] * 3
    assert [point["global_pruning_ratio"] for point in points[:3]] == [0.1, 0.2, 0.3]


def test_differences_name_the_keys() -> None:
    before = {"seed": 0, "space": {"pruning_ratio": {"head": 0.5}}}
    after = {"seed": 0, "space": {"pruning_ratio": {"head": 0.6, "stage1": 0.1}}}
    assert differences(before, after) == [
        "space.pruning_ratio.head was 0.5, is 0.6",
        "space.pruning_ratio.stage1 was None, is 0.1",
    ]
    assert differences(before, before) == []


def test_the_score_is_the_courses() -> None:
    rule = ScoreRule()
    assert rule(45, 0.92) == 45
    assert rule(45, 0.99) == 45
    assert rule(26.326, 0.9231) == pytest.approx(50.42, abs=0.005)  # the best public solution
    assert rule(45, 0.91) == pytest.approx(45 - 4.5)
    assert rule(200, 0.92) == 0
    assert rule(318.969, 0.9581) == pytest.approx(-34.539, abs=1e-3)


@given(mflops=st.floats(0, 400), accuracy=st.floats(0, 1))
def test_lines_of_equal_score_have_that_score(mflops: float, accuracy: float) -> None:
    rule = ScoreRule()
    assert rule.mflops_at(rule(mflops, accuracy), accuracy) == pytest.approx(mflops, abs=1e-6)


def test_a_study_that_extends_another_changes_what_it_says_and_has_a_name_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "first.toml").write_text(
        "name = 'one'\ntrials = 3\n[space.pruning_ratio]\nhead = 0.5\nstage3 = 0.1"
    )
    (tmp_path / "more" / "second.toml").write_text(
        "extends = 'first.toml'\nseed = 7\n[space.pruning_ratio]\nhead = 0.2"
    )
    spec = read(tmp_path, "extends = 'more/second.toml'\n[sampler]\nname = 'gp'")
    assert (spec.name, spec.trials, spec.seed, spec.sampler.name) == ("study", 3, 7, "gp")
    assert spec.space.pruning_ratio == {"head": 0.2, "stage3": 0.1}


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("extends = 'study.toml'", "study.toml extends this file in turn"),
        ("trials = [", "base.toml: not TOML"),
        ("extends = 3", "another study file's path, not 3"),
        ("extends = 'gone.toml'", "gone.toml: cannot be read.*base.toml extends or continues it"),
        ("trails = 3", "study.toml: trails: unknown key"),
    ],
)
def test_a_study_that_extends_what_is_none_is_refused(tmp_path: Path, base: str, message: str) -> None:
    (tmp_path / "base.toml").write_text(base)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, "extends = 'base.toml'")
    assert "\n" not in str(caught.value)


VARIED = """
[sampler]
name = "grid"
[space]
reconstruct = true
target_mflops = 100
importance = ["l1", "l2"]
[train]
epochs = 3
distill_temperature = 4.0
[variants.whole]
[variants."no logits"]
train.distill_temperature = 0
[variants."no reconstruction"]
space.reconstruct = false
[variants."another seed"]
train.seed = 5
"""


def test_a_variant_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    spec = read(tmp_path, VARIED)
    points = grid(spec)
    assert budget(spec) == len(points) == 8
    recipes = {(point["variant"], point["importance"]): recipe(point, spec) for point in points}
    whole = recipes["whole", "l1"]
    assert (whole.train.distill_temperature, whole.train.epochs, whole.prune.reconstruct) == (4.0, 3, True)
    assert recipes["no logits", "l1"] == replace(whole, train=replace(whole.train, distill_temperature=0.0))
    assert recipes["no reconstruction", "l1"] == replace(whole, prune=replace(whole.prune, reconstruct=False))
    assert recipes["another seed", "l1"] == replace(whole, train=replace(whole.train, seed=5))
    assert recipes["whole", "l2"].prune.importance == "l2"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("train.epoch = 1", "did you mean epochs"),
        ("space.importance = 'fpgm'", "the study samples it"),
        ("sampler.name = 'tpe'", "a variant changes space, prune"),
        ("prune.reconstruction_images = 3", "are the study's"),
    ],
)
def test_a_variant_that_cannot_be_is_refused(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, f"{VARIED}\n[variants.odd]\n{lines}")
    assert "variants.odd" in str(caught.value)
    assert "\n" not in str(caught.value)

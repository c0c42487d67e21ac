"""On the real CIFAR-10 and the course's network, where they are at hand."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from processes import Invoke
from pruner.channels.importance import score_channels
from pruner.channels.plan import make_plan
from pruner.data.datasets import cifar10
from pruner.measurement.measure import accuracy, count, evaluate
from pruner.network.loading import load_dense, load_network
from pruner.network.mobilenet import architecture_difference
from repository import STUDIES
from search.sampling.recipe import grid, recipe
from search.sampling.samplers import budget
from search.study.spec import read_study

CourseFiles = tuple[Path, Path]
SHIPPED = sorted(STUDIES.glob("*/mobilenet.pth"))


def test_the_courses_network_is_what_it_should_be(course_files: CourseFiles) -> None:
    root, base = course_files
    model = load_dense(base, 10)
    assert count(model) == (pytest.approx(318.969, abs=1e-3), 2_236_682)
    assert architecture_difference(model) is None
    right = evaluate(model, cifar10(root).test.first(300), resolution=224)
    assert accuracy(right) > 0.93


@pytest.mark.parametrize("network", SHIPPED, ids=lambda path: path.parent.name)
def test_a_network_that_is_shipped_is_what_its_card_says(network: Path, course_files: CourseFiles) -> None:
    root, _ = course_files
    card = network.with_name("card.md").read_text()
    model = load_network(network)
    assert architecture_difference(model) is None
    assert count(model)[0] == pytest.approx(float(said(card, r"operations \| ([\d.]+) MFLOPs")), abs=1e-3)
    right = evaluate(model, cifar10(root).test.first(500), resolution=224)
    of_all = float(said(card, r"accuracy on the test images \| ([\d.]+)%")) / 100
    assert accuracy(right) == pytest.approx(of_all, abs=0.036)  # three standard errors of 500 images


def said(card: str, pattern: str) -> str:
    found = re.search(pattern, card)
    assert found, pattern
    return found[1]


def test_the_fixed_ratio_study_cuts_what_it_names(course_files: CourseFiles) -> None:
    """30, 50 and 80 % of the channels outside residual blocks, which is far less of the work."""
    _, base = course_files
    spec = read_study(STUDIES / "fixed-ratio.toml")
    model = load_dense(base, 10)
    points = grid(spec)
    assert budget(spec) == 3
    assert [point["global_pruning_ratio"] for point in points] == [0.3, 0.5, 0.8]
    scores = score_channels(model, "l1")
    values = {"importance": "l1", "learning_rate": 0.01}
    plans = [make_plan(model, recipe({**values, **point}, spec).prune, scores) for point in points]
    removed = [plan.mflops_removed for plan in plans]
    assert removed == sorted(removed)
    assert 0 < removed[0] < removed[2] < 0.8
    for plan in plans:
        assert plan.kept_widths["stage4.hidden.9"] == 384
        assert plan.kept_widths["stage5.output"] == 96


@pytest.mark.slow
def test_the_record_is_graded_as_its_card_says(course_files: CourseFiles, invoke: Invoke) -> None:
    root, _ = course_files
    network = STUDIES / "record" / "mobilenet.pth"
    graded = json.loads(invoke("evaluate", network, "--data", "cifar10", "--data-root", root, "--json"))
    card = network.with_name("card.md").read_text()
    of_all = float(said(card, r"accuracy on the test images \| ([\d.]+)%")) / 100
    assert graded["accuracy"] == pytest.approx(of_all, abs=0.0005)  # another processor rounds differently
    assert graded["mflops"] == pytest.approx(float(said(card, r"operations \| ([\d.]+) MFLOPs")), abs=1e-3)
    assert graded["accuracy_drop_last"] == pytest.approx(graded["accuracy"], abs=0.0016)
    expected = (200 - graded["mflops"]) / 155 - 10 * max(0.92 - graded["accuracy"], 0)
    assert graded["score"] == pytest.approx(expected * 45)
    assert graded["originates_from_mobilenetv2"] is True


@pytest.mark.slow
def test_the_course_study_cut_short(course_files: CourseFiles, invoke: Invoke, tmp_path: Path) -> None:
    """All four searches on a few images: the whole way on the real data, at a low resolution."""
    root, base = course_files
    few = {
        "data.resolution": 64, "data.holdout": 500, "prune.reconstruction_images": 64, "train.distill_temperature": 0,
        "train.bn_recalibration_images": 256, "train.precision": "float32", "searches.wide.trials": 1,
        "searches.wide.eval_images": 100, "searches.narrow.trials": 1, "searches.narrow.eval_images": 100,
    }  # fmt: skip
    for name in ("wide-train", "narrow-train"):
        few |= {f"searches.{name}.train.images_per_epoch": 320, f"searches.{name}.train.phases": []}
        few |= {f"searches.{name}.train.epochs": 1}
    changes = [part for key, value in few.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    options = ("--data-root", root, "--dense", base, "--runs", tmp_path / "runs", *changes)
    printed = json.loads(invoke("run", STUDIES / "course.toml", *options, "--json"))
    assert printed["trials"]["done"] == 1 and "course.narrow-train" in printed["file"]
    assert printed["test"]["mflops"] == pytest.approx(printed["best"]["mflops"], abs=1e-6)
    assert printed["test"]["mflops"] <= 38
    assert printed["test"]["originates_from_mobilenetv2"] is True

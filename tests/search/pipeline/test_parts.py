"""Several searches in a study file: untrained candidates, finalists that are trained, the winner pruned again."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest

from processes import Command, Invoke
from pruner.errors import InputError
from records import figures, made, status
from search.pipeline.parts import choose, distance, read_parts
from search.study.predictor import Prediction
from search.study.score import ScoreRule
from studies import DATA, Finished, write_study

CANDIDATES = DATA | tomllib.loads("""
trials = 6
eval_images = 64
epoch_eval_images = 0
[space]
importance = "l2"
learning_rate = 0.004
[space.pruning_ratio]
stage3 = { low = 0.1, high = 0.8 }
stage6 = { low = 0.1, high = 0.8 }
head = 0.25
[sampler]
name = "random"
[train]
optimizer = "adamw"
epochs = 0
images_per_epoch = 64
batch_size = 32
[predictor]
observations = [[200, 0.2, 0.5], [150, 0.15, 0.4], [180, 0.25, 0.55], [160, 0.1, 0.35]]
""")
FINALISTS = """
[[searches]]
name = "search"
[[searches]]
name = "short"
parents = 3
min_distance = 0.01
train_only = true
train = { epochs = 1 }
predictor.observations = [[200, 0.3, 0.5], [150, 0.2, 0.4], [180, 0.35, 0.55], [160, 0.15, 0.35]]
[[searches]]
name = "long"
train_only = true
space.learning_rate = 0.002
train = { epochs = 2 }
"""
TWO = """
[[searches]]
name = "wide"
[[searches]]
name = "narrow"
trials = 3
[searches.space.pruning_ratio]
stage6 = 0.5
"""


@pytest.fixture(scope="module")
def searched_through(invoke: Invoke, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, Any]]:
    """(study file, runs folder, what `run --json` printed) of a search with finalists that ran through."""
    folder = tmp_path_factory.mktemp("searched_through")
    study = write_study(folder / "race.toml", FINALISTS, base=CANDIDATES)
    return study, folder / "runs", json.loads(invoke("run", study, "--runs", folder / "runs", "--json"))


def part(runs: Path, name: str) -> Path:
    return runs / name / "study.json"


@pytest.mark.slow
def test_the_best_that_a_search_predicts_are_trained_on_and_the_best_of_them_is_handed_over(
    invoke: Invoke, searched_through: tuple[Path, Path, dict[str, Any]]
) -> None:
    _, runs, result = searched_through
    searched = status(invoke, part(runs, "race.search"), runs)["records"]
    first, last = (status(invoke, part(runs, f"race.{n}"), runs)["records"] for n in ("short", "long"))
    assert [len(found) for found in (searched, first, last)] == [6, 3, 1]
    for record in (*searched, *first):
        assert record["predicted_std"] > 0
        prediction = Prediction(record["predicted"], record["predicted_std"])
        assert record["score"] == pytest.approx(prediction.score(ScoreRule(), record["mflops"]))
    assert last[0]["predicted"] is None
    assert last[0]["score"] == pytest.approx(ScoreRule()(last[0]["mflops"], last[0]["accuracy"]))
    best = max(searched, key=lambda record: record["score"])
    assert first[0]["sampled"]["parent"] == f"race.search/{best['number']}"
    assert first[0]["widths"] == best["widths"]
    winner = max(first, key=lambda record: record["score"])
    assert last[0]["widths"] == winner["widths"]
    assert result["best"]["number"] == 0 and result["best"]["score"] == last[0]["score"]
    assert "race.long" in result["file"] and result["test"]["mflops"] == pytest.approx(last[0]["mflops"])


@pytest.mark.slow
def test_a_study_in_parts_goes_on_where_it_was_and_ends_the_same(
    invoke: Invoke, searched_through: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    study, runs, result = searched_through
    again = json.loads(invoke("run", study, "--runs", runs, "--json"))
    assert again["best"] == result["best"]
    anew = tmp_path / "runs"
    begun = write_study(tmp_path / "begun.toml", 'name = "race.search"\ntrials = 3', base=CANDIDATES)
    invoke("run", begun, "--runs", anew)  # as if it had been interrupted after three trials
    invoke("run", study, "--runs", anew)
    for name in ("race.search", "race.short", "race.long"):
        one, two = (figures(status(invoke, part(folder, name), folder)) for folder in (runs, anew))
        assert one == two, name


@pytest.mark.slow
def test_networks_that_no_search_will_begin_from_again_may_be_deleted(
    invoke: Invoke, command: Command, searched_through: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    study, runs, result = searched_through
    kept = Path(shutil.copytree(runs, tmp_path / "runs"))
    shutil.rmtree(kept / "race.search" / "trials")  # race.short began from three of them, and race.long has begun
    assert json.loads(invoke("run", study, "--runs", kept, "--json"))["best"] == result["best"]
    shutil.rmtree(kept / "race.short" / "trials")
    refused = command("run", study, "--runs", kept)
    assert refused.returncode == 2 and "of study race.short is not finished, or not here" in refused.stderr


@pytest.mark.slow
def test_what_was_predicted_for_each_finalist_can_be_checked(
    invoke: Invoke, searched_through: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    study, runs, _ = searched_through
    drawn = tmp_path / "new" / "predictor.html"
    told = status(invoke, study, runs)
    assert told["study"] == "race.long" and list(told["parts_done"]) == ["race.search", "race.short"]
    assert told["parts_left"] == [] and told["parts_done"]["race.search"]["trials"]["done"] == 6
    assert "race.short: Trials: 3 done" in invoke("status", study, "--runs", runs)
    result = json.loads(invoke("predictor", study, "--runs", runs, "--json", "--out", drawn))
    rows = result["finalists"]
    assert [row["part"] for row in rows].count("race.short") == 3
    assert [row["part"] for row in rows[:3]] == ["race.search", "race.short", "race.long"], "the winner first"
    assert "What became of the finalists" in drawn.read_text()
    before, after = ([row for row in rows if row["part"] == name] for name in ("race.search", "race.short"))
    errors = [a["accuracy"] - b["predicted"] for b, a in zip(before, after, strict=True)]
    assert result["error"] == pytest.approx((sum(error**2 for error in errors) / 3) ** 0.5)
    assert re.search(r"reached(.|\n)* [0-3] of 3 lie within two", invoke("predictor", study, "--runs", runs))


@pytest.mark.slow
def test_a_search_prunes_the_winner_of_the_one_before(invoke: Invoke, tmp_path: Path) -> None:
    study, runs = write_study(tmp_path / "steps.toml", TWO, base=CANDIDATES), tmp_path / "runs"
    invoke("run", study, "--runs", runs)
    wide, narrow = (status(invoke, part(runs, f"steps.{name}"), runs)["records"] for name in ("wide", "narrow"))
    assert (len(wide), len(narrow)) == (6, 3)
    winner = max(wide, key=lambda record: record["score"])
    for record in narrow:
        assert record["mflops"] < winner["mflops"]
        assert all(record["widths"][name] <= width for name, width in winner["widths"].items())
    assert len(status(invoke, study, runs)["records"]) == 3, "of a file with parts, the one that was begun last"
    table = tmp_path / "race.csv"
    invoke("plot", study, part(runs, "steps.wide"), "--runs", runs, "--table", table)
    names = [line.partition(",")[0] for line in table.read_text().splitlines()[1:]]
    whole, wider = (sum(r["wall_seconds"] > 0 for r in found) for found in ([*wide, *narrow], wide))
    assert (names.count("steps"), names.count("steps.wide")) == (whole, wider), (
        "a study's cost is that of all its parts"
    )


@pytest.mark.slow
def test_a_study_that_continues_another_runs_what_is_missing_and_goes_on_from_its_winner(
    invoke: Invoke, searched_through: tuple[Path, Path, dict[str, Any]], tmp_path: Path
) -> None:
    study, runs, _ = searched_through
    further = study.parent / "further.toml"
    further.write_text(f"""
continues = "{study.name}"
[space]
importance = "l1"
[space.pruning_ratio]
stage6 = 0.5
[[searches]]
name = "narrow"
trials = 1
[[searches]]
name = "rates"
train_only = true
space.learning_rate = [0.002, 0.004]
train = {{ epochs = 1 }}
""")
    before = {path: path.stat().st_mtime_ns for path in runs.glob("race.*/trials/*/*.pth")}
    result = json.loads(invoke("run", further, "--runs", runs, "--json"))
    assert before == {path: path.stat().st_mtime_ns for path in runs.glob("race.*/trials/*/*.pth")}, "nothing ran again"
    (narrow,) = status(invoke, part(runs, "further.narrow"), runs)["records"]
    winner = status(invoke, part(runs, "race.long"), runs)["records"][0]
    assert all(narrow["widths"][name] <= width for name, width in winner["widths"].items())
    rates = status(invoke, part(runs, "further.rates"), runs)["records"]
    assert sorted(r["sampled"]["learning_rate"] for r in rates) == [0.002, 0.004]
    assert result["best"]["score"] == max(r["score"] for r in rates)
    anew = tmp_path / "anew"
    assert json.loads(invoke("run", further, "--runs", anew, "--json"))["best"]["score"] == result["best"]["score"]
    assert list(status(invoke, further, anew)["parts_done"]) == [
        "race.search", "race.short", "race.long", "further.narrow",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_search_that_needs_more_accuracy_than_there_is_ends_the_file_with_the_network_before(
    invoke: Invoke, searched_through: tuple[Path, Path, dict[str, Any]]
) -> None:
    study, runs, result = searched_through
    for needed, begun in ((1.0, False), (0.0, True)):
        further = study.parent / f"needs-{begun}.toml"
        further.write_text(f"""
continues = "{study.name}"
[space.pruning_ratio]
stage6 = 0.5
[[searches]]
name = "narrow"
trials = 1
needs_accuracy = {needed}
""")
        ended = json.loads(invoke("run", further, "--runs", runs, "--json"))
        assert part(runs, f"needs-{begun}.narrow").exists() == begun
        assert (ended["best"] == result["best"]) == (not begun) and Path(ended["file"]).is_file()


BACK = """
trials = 1
score.accuracy_penalty = 1000
train = { optimizer = "adamw", epochs = 3, batch_size = 32 }
space = { importance = "l2", learning_rate = 0.002, pruning_ratio = { stage6 = 0.05 } }
[[searches]]
name = "sound"
[[searches]]
name = "ruined"
holdout_flatters = 0.008
train.epochs = 0
space.pruning_ratio = { stage2 = 0.9, stage6 = 0.9 }
"""


def test_a_file_that_may_go_back_hands_over_the_network_of_the_highest_score(invoke: Invoke, tmp_path: Path) -> None:
    study, runs = write_study(tmp_path / "back.toml", BACK, base=DATA), tmp_path / "runs"
    ended = json.loads(invoke("run", study, "--runs", runs, "--json"))
    shown = json.loads(invoke("status", study, "--runs", runs, "--json"))
    sound = shown["parts_done"]["back.sound"]["best"]
    assert ended["best"] == sound and sound["accuracy"] > shown["best"]["accuracy"]
    assert Path(ended["file"]).is_relative_to(runs / "back.sound") and (runs / "back.ruined" / "report.html").exists()
    assert "The result is the best network of back.sound." in invoke("status", study, "--runs", runs)
    exported = json.loads(invoke("export", study, "--runs", runs, "--format", "pth", "--json"))
    assert exported["files"][0]["file"] == ended["file"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('continues = "race.toml"', "needs \\[\\[searches"),
        ('continues = "gone.toml"', "gone.toml: cannot be read"),
        ('continues = "further.toml"\n[[searches]]\nname = "a"', "continues this file in turn"),
        ('continues = 3', "should be another study file's path"),
        ('continues = "race.toml"\nextends = "race.toml"', "not both"),
        ('continues = "race.toml"\nname = "race"\n[[searches]]\nname = "a"\ntrials = 1', "another name"),
    ],
)  # fmt: skip
def test_what_cannot_be_continued_is_told_in_a_line(tmp_path: Path, text: str, message: str) -> None:
    write_study(tmp_path / "race.toml", FINALISTS, base=CANDIDATES)
    (tmp_path / "further.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_parts(tmp_path / "further.toml")


def searches(*parts: str) -> str:
    return "".join(f"[[searches]]\n{part}\n" for part in parts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (searches('name = "a"', 'name = "long"\ntrain_only = true\ntrain.epochs = -2'), "searches.long: train.epochs"),
        (
            searches('name = "a"', 'name = "b"\ntrain_only = true\nspace.importance = "l1"'),
            "nothing but a learning_rate",
        ),
        (searches('name = "a"\ntrain_only = true', 'name = "b"'), "no search before it"),
        (searches('name = "a"\nholdout_flatters = 0.01', 'name = "b"'), "no search before it"),
        (
            'objectives = ["params"]\n' + searches('name = "a"', 'name = "b"\nholdout_flatters = 0.01'),
            "searches.b.holdout_flatters: compares networks by the course's score",
        ),
        (f"{FINALISTS}[space.sparsity]\nstage6 = 0.5\n", "lose the zeros"),
        (searches('name = "a"', 'name = "b"\ntrain_only = true\ntrain.epoch = 1'), "did you mean epochs"),
        (searches("trials = 3"), "searches.0.name: field required"),
        (searches('name = "a"', 'name = "a"'), "name of its own"),
        (searches('name = "a"\ndata.name = "cifar10"'), "unknown key data"),
        (searches('name = "a"\nspace.pruning_ratio.stage9 = 0.5'), "stage9"),
    ],
)
def test_parts_that_would_be_no_studies_are_told_before_anything_runs(
    tmp_path: Path, command: Command, text: str, message: str
) -> None:
    study = write_study(tmp_path / "bad.toml", text, base=CANDIDATES)
    told = command("run", study, "--runs", tmp_path / "runs")
    assert told.returncode == 2 and message in told.stderr and told.stderr.count("\n") == 1, told.stderr
    assert not (tmp_path / "runs").exists()
    with pytest.raises(InputError, match=message):
        read_parts(study)


def test_finalists_differ_enough() -> None:
    dense = {"a": 100, "b": 200}
    found = [made(n, 50 + n, 0.9) for n in range(5)]
    widths = [{"a": 50, "b": 100}, {"a": 51, "b": 100}, {"a": 70, "b": 100}, {"a": 50, "b": 160}, {"a": 70, "b": 101}]
    for record, width in zip(found, widths, strict=True):
        object.__setattr__(record, "widths", width)
    chosen = choose(found, 3, 0.05, dense)
    assert [record.number for record in chosen] == [0, 2, 3], "1 is like 0, the fewest MFLOPs score best"
    assert all(distance(a.widths, b.widths, dense) >= 0.05 for a in chosen for b in chosen if a is not b)
    assert len(choose(found, 9, 0.9, dense)) == 1


@pytest.mark.slow
def test_trials_that_were_trained_through_make_a_forecast(
    invoke: Invoke, finished: Finished, tmp_path: Path, command: Command
) -> None:
    study, runs, _ = finished
    result = json.loads(invoke("predictor", study, "--runs", runs, "--json", "--out", tmp_path / "f.html"))
    records = status(invoke, study, runs)["records"]
    assert result["observations"] == [[r["mflops"], r["accuracy_before"], r["accuracy"]] for r in records]
    assert (
        len(result["predicted"]) == len(records)
        and "predicted by the other networks" in (tmp_path / "f.html").read_text()
    )
    line = invoke("predictor", study, "--runs", runs).splitlines()[-1]
    assert line.startswith("observations = [[")
    untrained = write_study(tmp_path / "few.toml", "trials = 1", base=CANDIDATES)
    invoke("run", untrained, "--runs", tmp_path / "runs")
    told = command("predictor", untrained, "--runs", tmp_path / "runs")
    assert told.returncode == 2 and "0 trials were evaluated untrained" in told.stderr and told.stderr.count("\n") == 1

"""Whole studies on real digits, through the command: killed, continued, changed, exported."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import warnings
from pathlib import Path

import optuna
import pytest
import torch

from processes import Command, Invoke, running, wait_for
from pruner.channels.plan import ChannelPlan, apply_plan
from pruner.network.loading import load_network
from pruner.network.mobilenet import widths
from records import status
from repository import STUDIES
from search.exit_status import ExitStatus
from search.sampling.early_stopping import report_curve
from search.study.score import ScoreRule
from search.study.spec import StudySpec
from studies import Finished, WriteStudy

pytestmark = pytest.mark.slow


def test_a_study_ends_with_trials_a_report_and_a_graded_network(invoke: Invoke, finished: Finished) -> None:
    study, runs, printed = finished
    assert printed["trials"]["done"] == 4
    state = status(invoke, study, runs)
    assert state["best"] == printed["best"]
    assert {"number", "score", "mflops", "accuracy"} <= state["best"].keys()
    assert state["wall_seconds"] > 0
    for record in state["records"]:  # before training, and after each of two epochs
        assert record["cost"] == sorted(record["cost"])
        assert 0 < record["cost"][0] < record["cost"][2] <= record["cpu_seconds"]
    best = max(state["records"], key=lambda r: r["score"])
    assert best["number"] == state["best"]["number"]
    assert printed["test"]["mflops"] == pytest.approx(best["mflops"], abs=1e-6)
    report = (runs / "tiny" / "report.html").read_text()
    assert "Plotly.newPlot" in report
    assert not [line for line in report.splitlines() if "<script src=" in line or "<link" in line]


def test_optuna_has_every_trials_learning_curve(invoke: Invoke, finished: Finished) -> None:
    study, runs, _ = finished
    opened = optuna.load_study(study_name="tiny", storage=f"sqlite:///{runs}/tiny/study.db")
    for trial, record in zip(opened.trials, status(invoke, study, runs)["records"], strict=True):
        scores = [ScoreRule()(record["mflops"], accuracy) for accuracy in record["curve"]]
        assert trial.intermediate_values == pytest.approx(dict(enumerate(scores, 1)))
        assert len(scores) == 2


def test_a_continued_trial_tells_of_an_epoch_once_and_of_two_objectives_nothing_is_told() -> None:
    one = optuna.create_study(direction="maximize")
    trial = one.ask()
    spec = StudySpec(name="s", trials=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report_curve(trial, spec, [0.25])
        report_curve(optuna.Trial(one, trial._trial_id), spec, [0.25, 0.5])
        report_curve(trial, spec, [0.25, 0.5])
    assert one.trials[0].intermediate_values == {1: 0.25, 2: 0.5}
    two = optuna.create_study(directions=["minimize", "maximize"])
    report_curve(two.ask(), StudySpec(name="s", trials=1, objectives=("mflops", "accuracy")), [0.25])
    assert two.trials[0].intermediate_values == {}


def test_every_trial_keeps_its_recipe_plan_and_network(finished: Finished) -> None:
    _, runs, _ = finished
    (dense,) = (runs / "dense").glob("*.pth")
    for number in range(4):
        folder = runs / "tiny" / "trials" / f"{number:04}"
        files = {path.name for path in folder.iterdir()}
        assert files == {
            "recipe.json",
            "trial.json",
            "plan.json",
            "checksums.json",
            "checkpoint.pt",
            "measurement.json",
            "latency.json",
            "model.pth",
            "log.txt",
            "metrics.csv",
            "lock",
        }
        plan = ChannelPlan.from_json(json.loads((folder / "plan.json").read_text()))
        model = load_network(folder / "model.pth")
        assert widths(model) == plan.kept_widths == widths(apply_plan(load_network(dense), plan))
        history = json.loads((folder / "measurement.json").read_text())["history"]
        assert [row["epoch"] for row in history] == [1, 2]


def test_running_a_finished_study_again_changes_nothing(invoke: Invoke, finished: Finished) -> None:
    study, runs, printed = finished
    models = sorted((runs / "tiny" / "trials").glob("*/model.pth"))
    stamps = [path.stat().st_mtime_ns for path in models]
    assert json.loads(invoke("run", study, "--runs", runs, "--json")) == printed
    assert [path.stat().st_mtime_ns for path in models] == stamps


def test_export_score_and_plot_by_command(command: Command, invoke: Invoke, finished: Finished, tmp_path: Path) -> None:
    study, runs, printed = finished
    invoke("export", study, "--runs", runs, "--trial", 2, "--out", tmp_path, "--format", "pth", "--no-grade")
    out = tmp_path / "mobilenet-2.pth"
    assert widths(load_network(out)) == widths(load_network(runs / "tiny" / "trials" / "0002" / "model.pth"))
    assert json.loads(out.with_suffix(".json").read_text())["accuracy"]["test"] is None
    best = json.loads(invoke("export", study, "--runs", runs, "--format", "pth", "--json"))
    assert best["trial"] == printed["best"]["number"]
    scored = json.loads(invoke("evaluate", best["files"][0]["file"], "--data", "digits", "--resolution", 32, "--json"))
    assert scored == printed["test"] == best["card"]["test"]
    assert scored["originates_from_mobilenetv2"] is True
    (runs / "tiny" / "report.html").unlink()
    invoke("plot", study, "--runs", runs, "--table", tmp_path / "new" / "trials.csv")
    assert len((tmp_path / "new" / "trials.csv").read_text().splitlines()) == 5
    assert (runs / "tiny" / "report.html").stat().st_size > 1_000_000
    missing = command("export", study, "--runs", runs, "--trial", 9)
    assert (missing.returncode, len(missing.stderr.splitlines())) == (2, 1)


def test_a_dense_network_whose_training_is_killed_goes_on_from_its_last_epoch(
    invoke: Invoke, finished: Finished, tmp_path: Path
) -> None:
    study, runs, _ = finished
    with running("train-dense", study, "--runs", tmp_path) as process:
        wait_for(lambda: list(tmp_path.glob("dense/*.checkpoint")), process)
        process.kill()
    invoke("train-dense", study, "--runs", tmp_path)
    (mine,), (theirs,) = (list((r / "dense").glob("*.pth")) for r in (tmp_path, runs))
    pair = (load_network(mine).state_dict(), load_network(theirs).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(pair[0].values(), pair[1].values(), strict=True))


def test_two_pools_share_a_study_and_begin_no_trial_too_many(
    invoke: Invoke, write_study: WriteStudy, tmp_path: Path
) -> None:
    study = write_study()
    arguments = ("run", study, "--runs", tmp_path / "r", "--threads", 1, "--workers", 1)
    with running(*arguments) as one, running(*arguments) as other:
        told = [process.communicate()[1] for process in (one, other)]
    assert [one.returncode, other.returncode] == [0, 0], told
    state = status(invoke, study, tmp_path / "r")
    assert state["trials"]["done"] == len(state["records"]) == 4
    assert sum(f"trial   {number}  done" in stderr for stderr in told for number in range(4)) == 4
    assert [stderr.count("dense network: epoch") for stderr in told] in ([0, 2], [2, 0])


def test_processes_that_open_a_new_study_at_once_share_one_database(tmp_path: Path) -> None:
    opening = (
        "import sys, time; from pathlib import Path; from search.storage.folder import StudyFolder; "
        "from search.storage.studies import open_study; from search.study.spec import StudySpec\n"
        "folder = StudyFolder(Path(sys.argv[1])); folder.create()\n"
        "while time.time() < float(sys.argv[2]): pass\n"
        "open_study(StudySpec(name='tiny', trials=3), folder)"
    )
    for attempt in range(2):
        start = str(time.time() + 4)
        arguments = [sys.executable, "-c", opening, str(tmp_path / str(attempt)), start]
        both = [subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        errors = [process.communicate()[1] for process in both]
        assert [process.returncode for process in both] == [0, 0], errors


def test_a_changed_space_is_refused_with_the_difference_and_more_trials_are_not(
    command: Command, invoke: Invoke, write_study: WriteStudy, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    fewer = "trials = 2\ntrain.epochs = 0\n"
    invoke("run", write_study(fewer), "--runs", runs)
    refused = command("run", write_study(f"{fewer}space.pruning_ratio.stage3.high = 0.7"), "--runs", runs)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "space.pruning_ratio.stage3.high was 0.8, is 0.7" in line
    study = write_study("train.epochs = 0")
    invoke("run", study, "--runs", runs)
    assert status(invoke, study, runs)["trials"]["done"] == 4
    other = tmp_path / "other.pth"
    from pruner.network.mobilenet import fresh

    torch.save(fresh(10, seed=5), other)
    refused = command("run", study, "--runs", runs, "--dense", other)
    assert (refused.returncode, "another dense network" in refused.stderr) == (2, True)


def test_equal_plans_are_trained_once_and_plans_beyond_a_limit_never(
    invoke: Invoke, write_study: WriteStudy, tmp_path: Path
) -> None:
    # 0.5 and 0.50001 are different samples of equal plans; an uncut network is over the limit.
    space = "learning_rate = 0.004\nglobal_pruning_ratio = [0.5, 0.50001, 0.0]"
    changes = f'sampler.name = "grid"\nconstraints.max_mflops = 250\n[space]\n{space}'
    study = write_study(changes, without=["trials", "epoch_eval_images", "space"])
    invoke("run", study, "--runs", tmp_path / "runs", "--workers", 1)  # one after the other
    first, second, third = status(invoke, study, tmp_path / "runs")["records"]
    assert (first["state"], second["state"], third["state"]) == ("done", "done", "skipped")
    assert (second["same_as"], second["wall_seconds"]) == (0, 0)
    assert (second["accuracy"], second["mflops"]) == (first["accuracy"], first["mflops"])
    opened = optuna.load_study(study_name="tiny", storage=f"sqlite:///{tmp_path}/runs/tiny/study.db")
    assert len(opened.trials[0].intermediate_values) == 2
    assert opened.trials[1].intermediate_values == opened.trials[0].intermediate_values
    assert "250" in third["reason"]
    assert third["accuracy"] is None
    assert not (tmp_path / "runs" / "tiny" / "trials" / "0002" / "model.pth").exists()
    invoke("export", study, "--runs", tmp_path / "runs", "--trial", 1, "--format", "pth", "--no-grade")


@pytest.mark.parametrize("sampler", ["tpe", "gp", "nsga2"])
def test_two_objectives_a_limit_and_every_sampler_that_looks_at_them(
    command: Command, invoke: Invoke, write_study: WriteStudy, tmp_path: Path, sampler: str
) -> None:
    study = write_study(
        f"""
objectives = ["mflops", "accuracy"]
sampler = {{ name = "{sampler}", n_startup_trials = 2 }}
constraints.min_accuracy = 0.99
train = {{ epochs = 1, images_per_epoch = 32 }}
"""
    )
    done = command("run", study, "--runs", tmp_path / "runs", "--json")
    assert done.returncode == ExitStatus.NONE_FEASIBLE
    printed = json.loads(done.stdout)
    assert printed["best"] is None  # nothing reaches 99 %
    state = status(invoke, study, tmp_path / "runs")
    assert state["trials"]["done"] == 4
    assert not any(record["feasible"] for record in state["records"])
    storage = f"sqlite:///{tmp_path}/runs/tiny/study.db"
    opened = optuna.load_study(study_name="tiny", storage=storage)
    assert [d.name for d in opened.directions] == ["MINIMIZE", "MAXIMIZE"]
    sampled = [tuple(record["sampled"].values()) for record in state["records"]]
    assert len(set(sampled)) == 4


def test_latency_is_a_limit_before_any_training_and_an_objective(
    command: Command, invoke: Invoke, write_study: WriteStudy, tmp_path: Path
) -> None:
    strict = write_study("trials = 2\nconstraints.max_latency_ms = 0.001", name="strict")
    assert command("run", strict, "--runs", tmp_path, "--workers", 1).returncode == ExitStatus.NONE_FEASIBLE
    dense = next((tmp_path / "dense").glob("*.pth"))
    for record in status(invoke, strict, tmp_path)["records"]:
        assert (record["state"], record["feasible"]) == ("skipped", False)
        assert "over 0.001 ms" in record["reason"]
        assert record["curve"] == []
    fast = write_study('trials = 2\nobjectives = ["latency_ms", "accuracy"]', name="fast")
    invoke("run", fast, "--runs", tmp_path, "--dense", dense, "--workers", 1)
    opened = optuna.load_study(study_name="fast", storage=f"sqlite:///{tmp_path}/fast/study.db")
    assert [d.name for d in opened.directions] == ["MINIMIZE", "MAXIMIZE"]
    for trial, record in zip(opened.trials, status(invoke, fast, tmp_path)["records"], strict=True):
        assert trial.values == [record["latency_ms"], record["accuracy"]]
        assert 0 < record["accuracy_before"] <= 1
        assert len(record["curve"]) == 2


@pytest.mark.parametrize("rule", ["asha", "median", "hyperband"])
def test_hopeless_trials_are_stopped_early(invoke: Invoke, write_study: WriteStudy, tmp_path: Path, rule: str) -> None:
    trials = 3 if rule == "hyperband" else 20  # its brackets are too small to stop any even of twenty
    study = write_study(
        f"""
trials = {trials}
early_stopping = {{ name = "{rule}", warmup_epochs = 1 }}
sampler.name = "random"
train = {{ epochs = 3, images_per_epoch = 32 }}
"""
    )
    printed = json.loads(invoke("run", study, "--runs", tmp_path / "runs", "--json"))
    state = status(invoke, study, tmp_path / "runs")
    assert state["trials"]["stopped"] + state["trials"]["done"] == trials
    stopped = [record for record in state["records"] if record["state"] == "stopped"]
    assert all(rule in record["reason"] for record in stopped)
    assert all(record["wall_seconds"] > 0 for record in stopped), "work on them is not counted"
    if rule != "hyperband":
        assert stopped
    assert printed["best"] is not None


def test_the_quickstart_as_a_new_user_runs_it(tmp_path: Path) -> None:
    study = STUDIES / "quickstart.toml"
    program = [str(Path(sys.executable).with_name("prune-search")), "run", str(study), "--json"]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["trials"]["done"] == 10
    (kept,) = (tmp_path / "runs" / "dense").glob("digits-*.json")
    dense_accuracy = json.loads(kept.read_text())["accuracy"]
    assert dense_accuracy >= 0.97
    best = printed["best"]
    assert best["mflops_removed"] >= 0.75
    assert best["accuracy"] >= dense_accuracy - 0.02
    assert printed["test"]["accuracy"] > 0.9
    shown = subprocess.run([program[0], "status", str(study), "--json"], cwd=tmp_path, capture_output=True, text=True)
    for record in json.loads(shown.stdout)["records"]:
        assert record["accuracy"] > record["accuracy_before"], f"retraining made trial {record['number']} worse"
    grader = "import sys, torch; print(torch.load(sys.argv[1], weights_only=False)(torch.zeros(1, 3, 32, 32)).shape)"
    file = tmp_path / printed["file"]
    loaded = subprocess.run([sys.executable, "-c", grader, file], capture_output=True, text=True, cwd="/")
    assert loaded.stdout.strip() == "torch.Size([1, 10])", loaded.stderr
    assert (tmp_path / "runs" / "quickstart" / "report.html").exists()

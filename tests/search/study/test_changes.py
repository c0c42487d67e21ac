"""Changes to a study on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from processes import Command, Invoke
from pruner.errors import InputError
from records import status
from search.study.changes import changed, parse
from search.study.spec import read_study
from studies import write_study


def test_a_change_counts_as_if_the_file_said_it(tmp_path: Path) -> None:
    said = write_study(tmp_path / "said.toml", 'name = "a"\ntrain.epochs = 5\nspace.importance = ["l1", "obs"]')
    study = write_study(tmp_path / "a.toml")
    given = [parse("train.epochs=5"), parse('space.importance = ["l1", "obs"]')]
    assert read_study(study, given).model_dump() == read_study(said).model_dump()


def test_a_table_of_a_list_is_named_by_its_name_or_place() -> None:
    content = {"searches": [{"name": "a"}, {"name": "b", "train": {"phases": [{"epochs": 1}, {"epochs": 2}]}}]}
    given = [parse("searches.a.trials=7"), parse("searches.b.train.phases.1.epochs=9"), parse("sampler.name=gp")]
    assert changed(content, given) == {
        "searches": [{"name": "a", "trials": 7}, {"name": "b", "train": {"phases": [{"epochs": 1}, {"epochs": 9}]}}],
        "sampler": {"name": "gp"},
    }
    assert content["searches"][0] == {"name": "a"}, "the content itself stays"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.epochs", "give KEY=VALUE"),
        ("=4", "give KEY=VALUE"),
        ("train..epochs=4", "give KEY=VALUE"),
        ("train.epochs=", "'' is no value"),
        ("train.epochs=4 5", "'4 5' is no value"),
        ("name=b", "only be changed in the file"),
        ("trials.most=4", "trials is one value, not a table"),
        ("searches.c.trials=4", "not one of a"),
        ("searches.trials=4", "searches is a list"),
        ("train.epoch=4", "train.epoch: unknown key.*did you mean epochs"),
        ("train.epochs=-4", "train.epochs"),
    ],
)
def test_a_change_that_makes_no_study_is_told_in_a_line(tmp_path: Path, text: str, message: str) -> None:
    study = write_study(tmp_path / "a.toml", '[[searches]]\nname = "a"')
    with pytest.raises(InputError, match=message) as told:
        read_study(study, [parse(text)])
    assert "\n" not in str(told.value)


@pytest.mark.slow
def test_a_study_remembers_the_changes_that_it_was_begun_with(tmp_path: Path, invoke: Invoke, command: Command) -> None:
    study, runs = write_study(tmp_path / "a.toml"), tmp_path / "runs"
    refused = command("run", study, "--runs", runs, "--set", "train.epochs=many")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and not runs.exists(), refused.stderr
    invoke("run", study, "--runs", runs, "--set", "train.epochs=1", "--set", "trials=1")
    assert status(invoke, study, runs)["trials"]["done"] == 1
    invoke("run", study, "--runs", runs, "--set", "trials=2")
    assert status(invoke, study, runs)["trials"]["done"] == 2
    (card, *_) = sorted((runs / "a" / "export").glob("*.json"))
    assert f"run {study} --set train.epochs=1 --set trials=" in json.loads(card.read_text())["command"]
    refused = command("run", study, "--runs", runs, "--set", "train.epochs=3")
    assert refused.returncode == 2 and "train.epochs was 1, is 3" in refused.stderr
    invoke("run", study, "--runs", runs)  # the change that was refused is not remembered

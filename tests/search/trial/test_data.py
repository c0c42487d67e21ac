"""A study on a folder of images, through the command: the same as on the data set it was written from."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from pictures import write_images, write_split
from processes import Command, Invoke
from pruner.data.datasets import Dataset, Split, hold_out
from pruner.network.loading import load_network
from pruner.network.mobilenet import fresh
from pruner.system.files import read_json
from pruner.system.hashes import weights_hash
from records import status
from search.terminal.events import At, Event, Events, Said
from search.trial.data import open_named
from studies import TINY, Finished, write_study

TENTH = {str(digit): 12 for digit in range(10)}


@pytest.fixture(scope="session")
def pngs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits of scikit-learn as PNGs, in train/ and test/ as the data set `digits` divides them."""
    root = tmp_path_factory.mktemp("pngs")
    bunch = load_digits()
    grey = torch.from_numpy(np.rint(bunch.images * (255 / 16)).astype(np.uint8))
    images = Split(grey[:, None].repeat(1, 3, 1, 1), torch.from_numpy(bunch.target.astype(np.int64)))
    learn, test = hold_out(images, 397, 10, seed=0)
    write_split(root / "train", learn, tuple("0123456789"))
    write_split(root / "test", test, tuple("0123456789"))
    return root


def study_of(root: Path, path: Path, data: str = "", trials: int = 4) -> Path:
    """The tiny study, on a folder."""
    return write_study(path, f'trials = {trials}\n[data]\nname = "folder"\nroot = "{root}"\n{data}', base=TINY)


@pytest.mark.slow
def test_a_folder_of_pngs_gives_the_same_plans_and_weights_as_the_data_set(
    invoke: Invoke, finished: Finished, pngs: Path, tmp_path: Path
) -> None:
    digits, there, printed = finished
    study, runs = study_of(pngs, tmp_path / "tiny.toml", "holdout = 297\nmirrors = false"), tmp_path / "runs"
    found = json.loads(invoke("run", study, "--runs", runs, "--workers", 1, "--json"))
    assert found["test"]["accuracy"] == printed["test"]["accuracy"]
    mine, theirs = (read_json(folder / "tiny" / "dense.json") for folder in (runs, there))
    assert mine["key"] == theirs["key"]
    assert mine["figures"] == theirs["figures"]
    pairs = zip(*(status(invoke, *of)["records"] for of in ((study, runs), (digits, there))), strict=True)
    for one, other in pairs:
        assert (one["score"], one["accuracy"], one["curve"]) == (other["score"], other["accuracy"], other["curve"])
        home = Path("tiny", "trials", f"{one['number']:04}")
        assert read_json(runs / home / "plan.json") == read_json(there / home / "plan.json")
        networks = [load_network(folder / home / "model.pth") for folder in (runs, there)]
        assert weights_hash(networks[0]) == weights_hash(networks[1])


@pytest.mark.slow
def test_a_study_on_photographs_names_its_classes_and_is_tied_to_them(
    invoke: Invoke, command: Command, tmp_path: Path
) -> None:
    root, runs = tmp_path / "photos", tmp_path / "runs"
    write_images(root / "train", {"ant": 40, "bee": 40}, (50, 40))
    write_images(root / "val", {"ant": 5, "bee": 5}, (50, 40))
    study = study_of(root, tmp_path / "ants.toml", trials=1)
    done = command("run", study, "--runs", runs, "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert "graded on val" in done.stderr
    assert "Validation images:" in done.stdout
    card = read_json(next((runs / "ants" / "export").glob("*.json")))
    assert card["class_names"] == ["ant", "bee"]
    assert card["test"]["graded_on"] == "val"
    (labels,) = (runs / "ants" / "export").glob("*.labels.txt")
    assert labels.read_text() == "ant\nbee\n"
    written = next((runs / "ants" / "export").glob("*.md")).read_text()
    assert "ant, bee" in written
    assert "accuracy on the validation images" in written
    stored = {path.name: path.stat().st_mtime_ns for path in (runs / "data").glob("*.npy")}
    assert {np.load(runs / "data" / name, mmap_mode="r").shape[1:] for name in stored} == {(3, 32, 32)}

    again = command("run", study, "--runs", runs, "--workers", 1)
    assert again.returncode == 0
    assert {path.name: path.stat().st_mtime_ns for path in (runs / "data").glob("*.npy")} == stored
    (root / "train" / "ant" / "ant-0.png").unlink()
    changed = command("run", study, "--runs", runs, "--workers", 1)
    assert changed.returncode == 2
    assert "begun with other images" in changed.stderr
    assert "Traceback" not in changed.stderr


def test_evaluate_and_compare_take_a_folder_and_decode_its_test_images_alone(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "photos"
    write_images(root / "train", TENTH, (20, 20))
    write_images(root / "test", TENTH, (20, 20))
    torch.save(fresh(10, 0), tmp_path / "network.pth")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    how = ("--data", root, "--resolution", 32, "--json")
    done = command("evaluate", tmp_path / "network.pth", *how)
    assert done.returncode == 0, done.stderr
    (kept,) = (tmp_path / "home/.cache/prune-search/data").glob("*.npy")
    assert np.load(kept).shape == (120, 3, 20, 20)
    graded = json.loads(done.stdout)
    (row,) = json.loads(command("compare", tmp_path / "network.pth", *how).stdout)["models"]
    assert row["accuracy"] == graded["accuracy"] == pytest.approx(0.1)  # untrained, it gives one answer


def test_processes_that_open_a_folder_at_once_decode_it_once(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    write_images(root, TENTH)
    told: list[Event] = []

    def opened(_: int) -> Dataset:
        device = torch.device("cpu")
        return open_named(
            str(root), None, device, Events(told.append), resolution=32, threads=1, cache=tmp_path / "data"
        )

    with ThreadPoolExecutor(3) as threads:  # a lock holds between threads as it does between processes
        first, *others = threads.map(opened, range(3))
    assert {event.total for event in told if isinstance(event, At)} == {120}
    assert sum(event.done == 0 for event in told if isinstance(event, At)) == 1  # one bar began
    assert {data.fingerprint for data in others} == {first.fingerprint}
    assert sum("neither val nor test" in event.text for event in told if isinstance(event, Said)) == 3


def test_bad_folders_and_names_are_one_line(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    network = tmp_path / "network.pth"
    torch.save(fresh(10, 0), network)
    root, runs = tmp_path / "photos", tmp_path / "runs"
    write_images(root, {"ant": 9})
    for words, said in (
        (("evaluate", network, "--data", tmp_path / "none"), "neither one of cifar10"),
        (("evaluate", network, "--data", "cifar11"), "neither one of cifar10"),
        (("evaluate", network, "--data", root), "one class only"),
        (("sensitivity", network, "--data", root, "--runs", runs), "one class only"),
        (("run", study_of(root, tmp_path / "a.toml"), "--runs", runs), "one class only"),
        (("run", study_of(tmp_path / "none", tmp_path / "b.toml"), "--runs", runs), "no such folder"),
        (("train-dense", study_of(root / "ant", tmp_path / "c.toml"), "--runs", runs), "no folder for each class"),
        (("run", write_study(tmp_path / "d.toml", 'data.name = "folder"'), "--runs", runs), "--data-root"),
        (("run", write_study(tmp_path / "e.toml", 'data.name = "cifar11"'), "--runs", runs), "did you mean cifar10?"),
    ):
        done = command(*words)
        (line,) = done.stderr.splitlines()
        assert done.returncode == 2
        assert said in line
    assert not runs.exists()
    assert not (tmp_path / "home").exists()
    write_images(root, {"bee": 9})
    assert "has 10 classes, photos has 2" in command("evaluate", network, "--data", root).stderr
    study = study_of(root, tmp_path / "f.toml", "[train]\nrandom_shift = 11")
    assert "random_shift: 11 is not below 10" in command("run", study, "--runs", runs).stderr

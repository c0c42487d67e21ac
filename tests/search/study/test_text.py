"""Study files as they lie on disks: their encodings, what they extend, and where the paths in them begin."""

from __future__ import annotations

import codecs
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from processes import Command
from pruner.errors import InputError
from pruner.network.mobilenet import fresh
from repository import STUDIES
from search.options import Options
from search.pipeline.parts import read_parts
from search.storage.folder import StudyFolder
from search.study.spec import StudySpec, from_content, read_study
from search.terminal.progress import Terminal
from search.trial.parent import parent_file
from search.workers.setup import set_up
from studies import DATA, write_study

TEXT = "about = 'für Ü'\ntrials = 3\n[space.pruning_ratio]\nhead = 0.5\n"


def complaint(path: Path) -> str:
    """The line that a study file is refused with."""
    with pytest.raises(InputError) as refused:
        read_study(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("content", [TEXT, TEXT.replace("\n", "\r\n"), TEXT.replace("\n", "\r")])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_a_byte_order_mark_and_other_line_ends_change_nothing(tmp_path: Path, content: str, mark: bytes) -> None:
    (tmp_path / "study.toml").write_bytes(mark + content.encode())
    (tmp_path / "more.toml").write_bytes(mark + b"extends = 'study.toml'\r\nseed = 1\r\n")
    spec = read_study(tmp_path / "study.toml")
    assert (spec.about, spec.trials, spec.space.pruning_ratio) == ("für Ü", 3, {"head": 0.5})
    assert read_study(tmp_path / "more.toml").trials == 3
    (tmp_path / "study.json").write_bytes(mark + '{"about": "für Ü",\r\n"trials": 3}'.encode())
    assert read_study(tmp_path / "study.json").about == "für Ü"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TEXT.encode("utf-16"), "UTF-16 text: save it as UTF-8"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "UTF-16 text"),
        (TEXT.encode("utf-16-le"), "not UTF-8 text"),
        ("trials = 3".encode("utf-16-le"), "NUL bytes"),
        (TEXT.encode("latin-1"), "not UTF-8 text: byte 11 is 0xfc"),
    ],
)
def test_text_that_is_not_utf_8_is_named_as_what_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "study.toml").write_bytes(content)
    assert message in complaint(tmp_path / "study.toml")
    (tmp_path / "more.toml").write_text("extends = 'study.toml'")
    line = complaint(tmp_path / "more.toml")
    assert message in line and f"{tmp_path / 'more.toml'} extends or continues it" in line


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (".", "directory"),
        ("", "directory"),
        ("gone.toml", "No such file"),
        ("/dev/null", "a device, not a file"),
        ("/dev/zero", "a device, not a file"),
        ("\\u0000", "another study file's path, not '\\x00'"),
        ("large.toml", "too large"),
    ],
)
def test_what_is_no_file_is_not_extended(tmp_path: Path, base: str, message: str) -> None:
    with (tmp_path / "large.toml").open("wb") as file:
        file.truncate(2**40)
    (tmp_path / "study.toml").write_text(f'extends = "{base}"\ntrials = 3')
    line = complaint(tmp_path / "study.toml")
    assert message in line and "study.toml" in line and "extends" in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"trials": 3, "seed": 1, "trials": 4}', "the key 'trials' occurs twice"),
        ('{"trials": 3, "space": {"pruning_ratio": {"head": 0.1, "head": 0.2}}}', "the key 'head' occurs twice"),
        ('{"trials": 3, "timeout_hours": NaN}', "hours: input should be a finite number, not nan"),
        ('{"trials": 3, "timeout_hours": -Infinity}', "hours: input should be a finite number, not -inf"),
        ('{"trials": 3, "about": "\\ud800"}', "study.json"),
        ('{"trials": 3,}', "not JSON"),
        ("[1]", "holds no study"),
        ("[" * 100_000, "not JSON"),
        ("", "not JSON"),
    ],
)
def test_mistakes_in_json_are_told_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "study.json").write_text(content)
    assert message in complaint(tmp_path / "study.json")


@pytest.fixture
def nested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a study in a folder of its own that goes on from a network beside it; nobody works in there."""
    (tmp_path / "studies" / "nets").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("one", "two", "7"):
        torch.save(fresh(10, 0), tmp_path / "studies" / "nets" / f"{name}.pth")
    (tmp_path / "studies" / "nets" / "7.pth").rename(tmp_path / "studies" / "nets" / "7")
    (tmp_path / "studies" / "first.toml").write_text("trials = 3\n[space]\nparent = 'nets/one.pth'\n")
    return tmp_path


def parent(spec: StudySpec) -> Path:
    assert isinstance(spec.space.parent, str)
    return parent_file(spec.space.parent, spec, StudyFolder(Path("runs") / spec.name)).resolve()


def test_a_parents_path_begins_at_the_file_that_says_it(nested: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    studies = nested / "studies"
    one, two = studies / "nets" / "one.pth", studies / "nets" / "two.pth"
    first = read_study(studies / "first.toml")
    assert parent(first) == one
    assert parent(read_study(Path(os.path.relpath(studies / "first.toml")))) == one
    assert from_content(json.loads(json.dumps(first.content()))) == first, "workers read it in another way"
    (studies / "nets" / "second.toml").write_text("extends = '../first.toml'\n")
    assert parent(read_study(studies / "nets" / "second.toml")) == one
    (nested / "third.toml").write_text(f"extends = '{studies / 'nets' / 'second.toml'}'\n")
    assert parent(read_study(nested / "third.toml")) == one
    (nested / "fourth.toml").write_text("extends = 'studies/first.toml'\n[space]\nparent = 'studies/nets/two.pth'\n")
    assert parent(read_study(nested / "fourth.toml")) == two
    for same in (f"{two}", "~/two.pth"):
        monkeypatch.setenv("HOME", str(two.parent))
        (nested / "fifth.toml").write_text(f"trials = 1\n[space]\nparent = '{same}'\n")
        (studies / "sixth.toml").write_text("extends = '../fifth.toml'\n")
        assert parent(read_study(studies / "sixth.toml")) == two
    (studies / "nets" / "seventh.toml").write_text("trials = 1\n[space]\nparent = '7'\n")
    (studies / "eighth.toml").write_text("extends = 'nets/seventh.toml'\n")
    assert parent(read_study(studies / "eighth.toml")) == studies / "nets" / "7", "not trial 7 of a study"


def test_parents_in_lists_searches_and_variants_move_as_well(nested: Path) -> None:
    studies = nested / "studies"
    (studies / "many.toml").write_text(
        "trials = 3\n[space]\nparent = ['nets/one.pth', 'other/3', 'dense']\n"
        "[[searches]]\nname = 'a'\nspace.parent = 'nets/two.pth'\n"
    )
    (nested / "below.toml").write_text("extends = 'studies/many.toml'\n")
    assert read_study(nested / "below.toml").space.parent == ("studies/nets/one.pth", "other/3", "dense")
    (part,) = read_parts(nested / "below.toml")
    assert part.study().space.parent == "studies/nets/two.pth"
    (studies / "varied.toml").write_text("trials = 3\n[variants.a]\nspace.parent = 'nets/two.pth'\n")
    (nested / "below.toml").write_text("extends = 'studies/varied.toml'\n")
    assert read_study(nested / "below.toml").variant("a").space.parent == "studies/nets/two.pth"


def test_studies_that_are_shipped_find_their_parents_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for path in STUDIES.glob("*.toml"):
        spec = read_study(path)
        if spec.space.parent != "dense":
            assert parent(spec).is_file()


@pytest.mark.slow
def test_a_study_goes_on_from_its_parent_in_any_working_directory_and_when_it_is_moved(nested: Path) -> None:
    study, runs = nested / "studies" / "next.toml", nested / "runs"
    space = "parent = ['nets/one.pth', 'nets/two.pth']\nglobal_pruning_ratio = 0.9"
    write_study(study, f"trials = 2\n[space]\n{space}", base=DATA)
    options = Options(runs=runs, dense=nested / "studies" / "nets" / "one.pth", threads=1)
    first = set_up(read_study(study), StudyFolder(runs / "next"), options, Terminal())
    key = first.context.parent("nets/two.pth").hash
    moved = (nested / "studies").rename(nested / "moved")
    options = replace(options, dense=moved / "nets" / "one.pth")
    again = set_up(read_study(moved / "next.toml"), StudyFolder(runs / "next"), options, Terminal())
    assert again.context.parent("nets/two.pth").hash == key


BAD = {
    "[train]\nepochs = 1e400": "train.epochs",
    "[space.pruning_ratio]\nhead = { low = 0.1, high = 0.8, step = 0.3 }": "space.pruning_ratio.head",
    "[data]\nholdout = 1400": "holdout",
    "[space]\nparent = 'gone.pth'": "space.parent",
    "[space]\nparent = 'bad.toml'": "bad.toml",
    "[dense]\ncheckpoint = 'gone.pth'": "gone.pth",
    "[dense]\ncheckpoint = 'bad.toml'": "bad.toml",
    "[[searches]]\nname = 'a'\n[[searches]]\nname = 'b'\nspace.learning_rate = nan": "space.learning_rate",
    "[[searches]]\nname = 'a'\n[[searches]]\nname = 'b'\ntrain_only = true\ntrain.warmup = inf": "train.warmup",
    "[sampler]\nname = 'grid'\n[space]\nlearning_rate = { low = 0.1, high = 0.2 }": "space.learning_rate",
}


@pytest.mark.parametrize("lines", BAD)
def test_a_study_that_is_refused_leaves_nothing_begun(command: Command, tmp_path: Path, lines: str) -> None:
    write_study(tmp_path / "bad.toml", lines, base={"trials": 3, "data": DATA["data"]})
    before = set(tmp_path.iterdir())
    for name in ("run", "worker"):
        done = command(name, "bad.toml", *(["--workers", 1] if name == "run" else []), cwd=tmp_path)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("prune-search: ") and BAD[lines] in line
        assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("option", [("--device", "abacus"), ("--dense", "bad.toml"), ("--storage", "postgresql://a:b")])
def test_options_that_are_refused_leave_nothing_begun(
    command: Command, tmp_path: Path, option: tuple[str, str]
) -> None:
    (tmp_path / "bad.toml").write_text("trials = 3\n[data]\nname = 'digits'\nresolution = 32\n")
    done = command("run", "bad.toml", "--workers", 1, *option, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.toml"]

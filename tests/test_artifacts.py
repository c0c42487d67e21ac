"""A trial's files in an artifact store belong to the worker that holds the trial."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from conftest import TINY_STUDY

from search.sampling.recipe import recipe
from search.storage.artifacts import Shared, artifact_store
from search.storage.folder import CHECKSUMS, StudyFolder, TrialFolder
from search.storage.leases import Lost
from search.storage.studies import open_study
from search.study.spec import read_study
from search.workers.heartbeat import Heart
from search.workers.scheduler import Dispatch, Taken


def test_a_worker_that_slept_writes_over_nothing_of_the_trials_next_worker(tmp_path: Path) -> None:
    study = tmp_path / "tiny.toml"
    study.write_text(TINY_STUDY)
    spec, url, place = read_study(study), f"sqlite:///{tmp_path}/study.db", tmp_path / "store"

    def join(name: str) -> tuple[StudyFolder, Shared, Dispatch]:
        folder = StudyFolder(tmp_path / name / "tiny")
        folder.create()
        shared = Shared(open_study(spec, folder, url), *artifact_store(str(place), create=True))
        return folder, shared, Dispatch(shared.store, spec, folder, grace=60)

    def files(folder: StudyFolder, shared: Shared, dispatch: Dispatch, *, fetch: bool) -> TrialFolder:
        return shared.trial_folder(
            folder, taken.trial, partial(dispatch.holding, taken.trial._trial_id), fetch=fetch
        )  # fmt: skip

    sleeper, other = join("here"), join("there")
    with ExitStack() as held:
        taken = sleeper[2].take(Heart(sleeper[2].claims, spec, 60), held)
        assert isinstance(taken, Taken)
        before = files(*sleeper, fetch=False)
        before.begin(recipe(taken.trial.params, spec), "dense")
        claims = other[2].claims
        claims.take(taken.trial._trial_id, other[2].place, claims.all()[taken.trial._trial_id])
        after = files(*other, fetch=True)
        assert (after.path / "recipe.json").read_bytes() == (before.path / "recipe.json").read_bytes()
        after._keep_json("plan.json", "of the next worker")
        stored = {path.name: path.read_bytes() for path in place.iterdir()}
        for name in ("plan.json", CHECKSUMS):
            with pytest.raises(Lost):
                before._keep_json(name, "of the worker that slept")
    assert {path.name: path.read_bytes() for path in place.iterdir()} == stored
    third = files(*join("elsewhere"), fetch=True)
    assert json.loads((third.path / "plan.json").read_text()) == "of the next worker"
    assert not (third.path / CHECKSUMS).exists()

"""A trial's files in an artifact store belong to the worker that holds the trial."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from search.sampling.recipe import recipe
from search.storage.artifacts import Shared, artifact_store
from search.storage.folder import StudyFolder
from search.storage.leases import Lost
from search.storage.studies import open_study
from search.storage.trial_folder import CHECKSUMS, TrialFolder
from search.study.spec import read_study
from search.workers.heartbeat import Heartbeat
from search.workers.scheduler import Scheduler, Taken
from studies import write_study


def test_a_worker_that_slept_writes_over_nothing_of_the_trials_next_worker(tmp_path: Path) -> None:
    study = write_study(tmp_path / "tiny.toml")
    spec, url, place = read_study(study), f"sqlite:///{tmp_path}/study.db", tmp_path / "store"

    def join(name: str) -> tuple[StudyFolder, Shared, Scheduler]:
        folder = StudyFolder(tmp_path / name / "tiny")
        folder.create()
        shared = Shared(open_study(spec, folder, url), *artifact_store(str(place), create=True))
        return folder, shared, Scheduler(shared.store, spec, folder, grace_period=60)

    def files(folder: StudyFolder, shared: Shared, scheduler: Scheduler, lease: int, *, fetch: bool) -> TrialFolder:
        mine = partial(scheduler.leases.beat, taken.trial._trial_id)
        return shared.trial_folder(folder, taken.trial, lease, mine, fetch=fetch)

    sleeper, other = join("local"), join("there")
    with ExitStack() as held:
        taken = sleeper[2].take(Heartbeat(sleeper[2].leases, spec, 60), held)
        assert isinstance(taken, Taken)
        before = files(*sleeper, taken.lease, fetch=False)
        # Slept after it had asked whether the trial is still its own.
        late = sleeper[1].trial_folder(sleeper[0], taken.trial, taken.lease, lambda: True, fetch=False)
        before.begin(recipe(taken.trial.params, spec), "dense")
        leases = other[2].leases
        lease = leases.take(taken.trial._trial_id, other[2].place, leases.all()[taken.trial._trial_id])
        assert lease
        after = files(*other, lease.beat, fetch=True)
        assert (after.path / "recipe.json").read_bytes() == (before.path / "recipe.json").read_bytes()
        after._save_json("plan.json", "of the next worker")
        stored = {path.name: path.read_bytes() for path in place.iterdir()}
        for name in ("plan.json", CHECKSUMS):
            with pytest.raises(Lost):
                before._save_json(name, "of the worker that slept")
    assert {path.name: path.read_bytes() for path in place.iterdir()} == stored
    late._save_json("plan.json", "of the worker that slept")
    assert stored.items() <= {path.name: path.read_bytes() for path in place.iterdir()}.items()
    leases.drop(taken.trial._trial_id)
    elsewhere = join("elsewhere")
    anew = elsewhere[2].leases.take(taken.trial._trial_id, elsewhere[2].place, None)
    assert anew and anew.beat < lease.beat
    third = files(*elsewhere, anew.beat, fetch=True)
    assert json.loads((third.path / "plan.json").read_text()) == "of the next worker"
    assert not (third.path / CHECKSUMS).exists()
    third._save_json("plan.json", "of a worker in a database built anew")
    fourth = files(*join("a fourth"), anew.beat + 1, fetch=True)
    assert json.loads((fourth.path / "plan.json").read_text()) == "of a worker in a database built anew"

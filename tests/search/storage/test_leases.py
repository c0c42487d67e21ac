"""Leases on real databases: who holds what, who counts as dead, how time is counted, what a lost connection does."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
import sqlalchemy
from sqlalchemy.exc import DBAPIError

from pruner.errors import InputError
from search.database import connection
from search.database.address import study_url
from search.database.connection import Database
from search.storage.leases import _WORK, Lease, Leases, Observer
from servers import Postgres

OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE pid <> pg_backend_pid() AND datname = current_database()"
)
"""Ends all other connections to the database."""


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    given = None
    if request.param == "postgres":
        given = request.getfixturevalue("postgres").url(f"claims_{time.monotonic_ns()}")
    opened = Database(study_url(given, tmp_path / "study.db"), tmp_path / "lock")
    yield opened
    opened.engine.dispose()


def leases(database: Database, worker: str) -> Leases:
    made = Leases(database.engine, 1, worker)
    made.create()
    return made


def test_a_claim_is_one_workers_until_another_takes_it(database: Database) -> None:
    one, other = leases(database, "one"), leases(database, "other")
    one.take(7, "local", None)
    assert one.beat(7)
    assert not other.beat(7)
    assert one.all() == {7: Lease("one", "local", 1, 0)}
    other.take(7, "there", one.all()[7])
    assert not one.beat(7)
    assert not one.got_on(7)
    one.give_back(7)  # it is not his to give
    assert other.all() == {7: Lease("other", "there", 2, 1)}  # the first one died, as far as anybody knows
    assert other.got_on(7)
    other.give_back(7)
    one.take(7, "local", one.all()[7])
    assert one.all()[7].deaths == 0  # given back is no death
    one.drop(7)
    assert one.all() == {}


def test_of_several_workers_that_take_one_trial_at_once_one_gets_it(database: Database, tmp_path: Path) -> None:
    workers = [leases(Database(database.url, tmp_path / "lock"), f"worker {n}") for n in range(6)]
    seen: Lease | None = None
    for round in range(5):  # the first time to insert it, then to take it over
        with ThreadPoolExecutor(len(workers)) as at_once:
            taken = list(at_once.map(lambda one, seen=seen: one.take(7, "local", seen), workers))
        (seen,) = [lease for lease in taken if lease]
        assert leases(database, "reader").all() == {7: seen}
        assert seen.beat == round, "two leases of one trial have different numbers"
    assert workers[0].take(7, "local", dataclasses.replace(seen, beat=0)) is None, "its worker has beaten meanwhile"


def test_deaths_in_a_row_are_counted_until_an_epoch_is_done(database: Database) -> None:
    for number in range(4):
        mine = leases(database, f"worker {number}")
        mine.take(3, "local", mine.all().get(3))
        assert mine.all()[3].deaths == number
    assert mine.got_on(3)
    assert mine.all()[3].deaths == 0


def test_only_silence_for_the_whole_grace_period_counts_as_death() -> None:
    now = 0.0
    observer = Observer(60, lambda: now)
    lease = Lease("one", "there", 5, 0)
    assert not observer.is_stale(1, lease)  # never looked
    for moment in range(0, 60, 10):
        now = float(moment)
        observer.look({1: lease})
        assert not observer.is_stale(1, lease)
    now = 61.0
    assert observer.is_stale(1, lease)
    beating = Lease("one", "there", 6, 0)
    assert not observer.is_stale(1, beating)
    observer.look({1: beating})
    now = 80.0
    observer.look({1: beating})
    assert not observer.is_stale(1, beating)
    observer.look({})
    observer.look({1: beating})
    assert not observer.is_stale(1, beating)  # looked at anew


def test_silence_while_the_database_was_away_is_nobodys_death() -> None:
    now = 0.0
    observer = Observer(60, lambda: now)
    lease = Lease("one", "there", 5, 0)
    observer.look({1: lease})
    now = 300.0  # no look went through, and no beat
    assert not observer.is_stale(1, lease)
    observer.look({1: lease})
    assert not observer.is_stale(1, lease)
    for moment in range(310, 360, 10):
        now = float(moment)
        observer.look({1: lease})
        assert not observer.is_stale(1, lease)
    now = 361.0
    assert observer.is_stale(1, lease)


def test_time_is_counted_once_however_many_work_and_not_while_nobody_does(database: Database) -> None:
    one, other = leases(database, "one"), leases(database, "other")

    def pass_by(seconds: float) -> None:
        """Have the last call be so much longer ago."""
        with database.engine.begin() as connection:
            connection.execute(_WORK.update().values(last=_WORK.c.last - seconds))

    one.work(longest_gap=3600.0)
    for _ in range(2):
        pass_by(1000)
        one.work(longest_gap=3600.0)
        worked, best = other.work(longest_gap=3600.0)
    assert 2000 <= worked < 3000, "counted twice"
    assert best is None
    pass_by(4000)
    assert one.work(longest_gap=3600.0)[0] == worked
    one.reached(5.0)
    other.reached(3.0)
    assert one.work(longest_gap=3600.0)[1] == 5.0


def test_one_at_a_time_is_alone(database: Database, tmp_path: Path) -> None:
    inside, most = 0, 0

    def enter() -> None:
        nonlocal inside, most
        mine = Database(database.url, tmp_path / "lock")
        for _ in range(5):
            with mine.alone("what all do"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.005)
                inside -= 1
        mine.engine.dispose()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_query_that_breaks_half_way_is_asked_again(postgres: Postgres, tmp_path: Path) -> None:
    database = Database(study_url(postgres.url("broken_query"), tmp_path / "study.db"), tmp_path / "lock")
    study = optuna.create_study(storage=database.storage)
    study.tell(study.ask(), 1.0)
    killer = database.another_engine()
    said: list[str] = []

    def break_off(*statement: object) -> None:
        if "trial_values" in str(statement[2]) and not said:  # Optuna asks for the trials first, then for these
            with killer.begin() as connection:
                connection.execute(sqlalchemy.text(OTHERS))

    sqlalchemy.event.listen(database.engine, "before_cursor_execute", break_off)
    assert [trial.value for trial in database.patiently(lambda: study.trials, said.append)] == [1.0]
    assert "terminating connection" in said[0]
    assert said[1:] == ["The database is back."]


def test_a_worker_that_is_stopped_in_a_transaction_holds_nobody_up_for_long(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = study_url(postgres.url("stopped"), tmp_path / "study.db")
    other = Database(url, tmp_path / "lock")
    monkeypatch.setattr(connection, "_SILENCE_S", 2)
    stopped = Database(url, tmp_path / "lock")
    mine, theirs = leases(stopped, "stopped"), leases(other, "other")
    with pytest.raises(DBAPIError), stopped.alone("what both do"), other.alone("what both do"):
        theirs.take(3, "there", None)  # the first one's session has been ended
    mine.take(4, "local", None)
    with pytest.raises(DBAPIError) as lost, stopped.engine.begin() as transaction:
        change = sqlalchemy.text("UPDATE prune_search_leases SET deaths = 7 WHERE trial_id = 4")
        transaction.execute(change)
        theirs.take(4, "there", theirs.all()[4])  # waits for that row
        transaction.execute(change)
    assert lost.value.connection_invalidated  # so it is asked again on another one
    assert {trial_id: lease.worker for trial_id, lease in theirs.all().items()} == {3: "other", 4: "other"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("what is this", "--storage"),
        ("oracle://host/name", "not supported"),
        ("postgresql://user:secret@127.0.0.1:1/name", "cannot be reached"),
    ],
)
def test_a_storage_that_cannot_be_used_is_told_without_its_password(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        Database(study_url(url, tmp_path / "study.db"), tmp_path / "lock")
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)

"""What asking for the next trial costs in a study that holds 10, 100, 1,000, 10,000 finished trials.

    python tests/benchmarks/bench_ask.py            # SQLite, and PostgreSQL where its server is installed

Steps of a worker, in milliseconds (`first`: a process that has just joined reads the whole study once; the others are
medians over `--rounds` trials): `take` the whole of getting a trial, of which `draw` the sampler; `tell` writing its
result; `look` the records that follow it.

Two Xeon cores that also had other small things to do, optuna 5.0.0, PostgreSQL 15, TPE, 5 rounds:

              trials    first     take     draw     tell     look
    SQLite        10     62.3     58.7      9.8     21.0      7.4
    SQLite       100    212.5     91.1     39.0     21.9      9.1
    SQLite      1000   1619.5    387.9    325.2     25.2     23.4
    SQLite     10000   9918.0    377.6    335.2     17.5    127.8
    PostgreSQL    10    126.3     94.6      9.8     31.6     13.0
    PostgreSQL   100    401.6    116.5     39.2     31.3     13.0
    PostgreSQL  1000   1756.7    250.0    179.5     22.3     16.7
    PostgreSQL 10000  13327.6    481.9    358.7     35.6    151.9

Nothing grows faster than the study: joining and looking read every trial once; a draw remembers 1,000 of them.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import optuna
from optuna.trial import Trial, create_trial

from search.results.records import records
from search.sampling.samplers import draw
from search.storage.folder import StudyFolder
from search.storage.studies import Store, open_study
from search.study.spec import StudySpec, read_study
from search.workers.heartbeat import Heartbeat
from search.workers.scheduler import Scheduler, Taken

COURSE = Path(__file__).parents[2] / "studies" / "course.toml"


def fill(store: Store, spec: StudySpec, size: int) -> None:
    """Bring the study to so many finished trials, as a search at random would."""
    chance = random.Random(size)
    example = draw(spec, 0, [])
    for number in range(len(store.study.get_trials(deepcopy=False)), size):
        params = {
            name: chance.choice(d.choices) if isinstance(d, optuna.distributions.CategoricalDistribution)
            else chance.uniform(d.low, d.high)  # type: ignore[attr-defined]
            for name, d in example.distributions.items()
        }  # fmt: skip
        figures = {"mflops": 60.0, "params": 10**6, "accuracy": 0.9, "score": chance.gauss(30, 5), "seconds": 60.0,
                   "size_bytes": 4 * 10**6, "mflops_removed": 0.8, "params_removed": 0.5, "worker": "w",
                   "threads": 1, "hash": f"{number:016}"}  # fmt: skip
        store.study.add_trial(
            create_trial(params=params, distributions=example.distributions, value=figures["score"], user_attrs=figures)
        )


def timed(action: Callable[[], object]) -> tuple[float, object]:
    began = time.perf_counter()
    value = action()
    return 1000 * (time.perf_counter() - began), value


def measure(spec: StudySpec, folder: StudyFolder, url: str | None, rounds: int) -> dict[str, float]:
    """Median milliseconds by step, for a process that joins the study as it stands."""
    store = open_study(spec, folder, url)
    scheduler = Scheduler(store, spec, folder, grace_period=60)
    heartbeat = Heartbeat(scheduler.leases, spec, 60)
    steps: dict[str, list[float]] = {"take": [], "draw": [], "tell": [], "look": []}
    first = 0.0
    for turn in range(rounds + 1):
        with ExitStack() as held:
            spent, taken = timed(lambda held=held: scheduler.take(heartbeat, held))  # type: ignore[misc]
            assert isinstance(taken, Taken)
            found = store.study.get_trials(deepcopy=False)
            drawing, _ = timed(lambda taken=taken, found=found: draw(spec, taken.trial.number, found))  # type: ignore[misc]

            def tell(trial: Trial = taken.trial) -> None:
                scheduler.leases.beat(trial._trial_id)
                trial.set_user_attr("score", 30.0)
                store.study.tell(trial, 30.0)
                scheduler.leases.drop(trial._trial_id)

            telling, _ = timed(tell)
            looking, _ = timed(lambda: records(store.study))
        if turn == 0:
            first = spent
            continue
        for name, value in zip(steps, (spent, drawing, telling, looking), strict=True):
            steps[name].append(value)
    return {"first": first, **{name: statistics.median(values) for name, values in steps.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10, 100, 1000, 10000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sampler", default="tpe", choices=["tpe", "gp", "random", "nsga2"])
    chosen = parser.parse_args()
    sys.path.append(str(Path(__file__).parents[1] / "support"))
    from servers import Postgres, postgres_programs

    programs = postgres_programs()
    server = Postgres(programs) if programs else None
    spec = read_study(COURSE)
    spec = spec.model_copy(
        update={"trials": 10**6, "sampler": spec.sampler.model_copy(update={"name": chosen.sampler})}
    )
    try:
        print(f"{'':12}{'trials':>8}" + "".join(f"{name:>9}" for name in ("first", "take", "draw", "tell", "look")))
        for name, url in (("SQLite", None), *((("PostgreSQL", server.url("bench")),) if server else ())):
            with tempfile.TemporaryDirectory() as place:
                folder = StudyFolder(Path(place))
                folder.create()
                for size in chosen.sizes:
                    fill(open_study(spec, folder, url), spec, size)
                    row = measure(spec, folder, url, chosen.rounds)
                    print(f"{name:12}{size:8}" + "".join(f"{value:9.1f}" for value in row.values()), flush=True)
    finally:
        if server:
            server.remove()


if __name__ == "__main__":
    main()

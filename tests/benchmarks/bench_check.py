"""What `check` costs for a finished trial, against building every network, which it did before.

    python tests/benchmarks/bench_check.py

Runs small studies on digits that cut all hidden widths alike, then looks at their files both ways, in processor time on
one thread. The old way parses the JSON files, loads the network, runs it and counts its operations; a flipped bit in a
weight escapes it. The new way is the whole of `search.integrity.check.find_problems`, database included: it compares
the length and CRC-32 of every file with those noted when the trial was finished, checkpoints, which the old way did not
read, too.

Two cores of an AMD EPYC that others kept busy, torch 2.14.1:

      0% of the channels cut, 36.5 MB a trial: old way  90.3 ms, new way 7.62 ms, 12 times as fast
     50% of the channels cut, 10.0 MB a trial: old way  64.8 ms, new way 2.63 ms, 25 times as fast
     75% of the channels cut,  3.1 MB a trial: old way  63.0 ms, new way 1.34 ms, 47 times as fast

The new way is bound by reading: a network that was hardly cut has a checkpoint of 27 MB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from pruner.measurement.measure import count
from pruner.network.loading import load_network
from pruner.system.files import read_json
from search.integrity.check import find_problems
from search.storage.artifacts import Shared
from search.storage.folder import StudyFolder
from search.storage.studies import load_study
from search.storage.trial_folder import TrialFolder
from search.study.spec import read_study
from search.terminal.progress import Terminal


def old_way(home: TrialFolder) -> None:
    for name in ("recipe.json", "plan.json", "measurement.json"):
        assert read_json(home.path / name)
    count(load_network(home.model))


def milliseconds(action: Callable[[], object], rounds: int) -> float:
    """Of processor time; the best of some rounds."""
    spent = []
    for _ in range(rounds):
        began = time.process_time()
        action()
        spent.append(time.process_time() - began)
    return 1000 * min(spent)


def changes(cut: float, trials: int) -> str:
    """To the tiny study."""
    cuts = "".join(f"stage{number} = {cut}\n" for number in range(2, 8))
    train = "train = { epochs = 1, images_per_epoch = 32 }\n"
    space = f"[space]\nlearning_rate = {{ low = 0.002, high = 0.01 }}\n[space.pruning_ratio]\n{cuts}head = {cut}\n"
    return f"trials = {trials}\n{train}{space}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cuts", type=float, nargs="+", default=[0.0, 0.5, 0.75])
    chosen = parser.parse_args()
    sys.path.append(str(Path(__file__).parents[1] / "support"))
    from studies import write_study

    torch.set_num_threads(1)
    for cut in chosen.cuts:
        with tempfile.TemporaryDirectory() as place:
            study, runs = Path(place) / "tiny.toml", Path(place) / "runs"
            write_study(study, changes(cut, chosen.trials), without=["space"])
            subprocess.run(["prune-search", "run", study, "--runs", runs], check=True, capture_output=True)
            spec, folder = read_study(study), StudyFolder(runs / "tiny")
            shared = Shared(load_study(spec, folder), None)
            homes = [folder.trial(number) for number in range(chosen.trials)]
            old = milliseconds(lambda homes=homes: [old_way(home) for home in homes], chosen.rounds) / chosen.trials
            new = (
                milliseconds(
                    lambda shared=shared, folder=folder: find_problems(shared, folder, Terminal()), chosen.rounds
                )
                / chosen.trials
            )
            size = sum(path.stat().st_size for home in homes for path in home.path.iterdir()) / chosen.trials
        print(f"{cut:4.0%} of the channels cut, {size / 1e6:4.1f} MB a trial: ", end="")
        print(f"old way {old:5.1f} ms, new way {new:.2f} ms, {old / new:.0f} times as fast", flush=True)


if __name__ == "__main__":
    main()

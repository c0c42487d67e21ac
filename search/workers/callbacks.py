"""A worker's actions as a trial progresses: report to Optuna, check the constraints, keep the trial's lease."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from optuna.trial import Trial, TrialState

from pruner.channels.plan import ChannelPlan
from pruner.measurement.latency import Latency
from search import signals
from search.results.figures import Figures
from search.sampling.early_stopping import report_curve, stop_if_hopeless
from search.storage.artifacts import Shared
from search.storage.leases import Leases, Lost
from search.storage.studies import Store
from search.storage.trial_file import write_trial
from search.storage.trial_folder import TrialFolder
from search.study.constraints import excesses, size_mb
from search.trial.context import Context
from search.workers.heartbeat import Heartbeat

T = TypeVar("T")
_SIDES = {"max": "over", "min": "under"}
_UNITS = {"mflops": "MFLOPs", "size_mb": "MB", "latency_ms": "ms"}


class Skipped(Exception):
    """The plan violates a constraint, so it is not trained."""


class Patiently(Protocol):
    """Calls a function that uses the database, and repeats it while the database is away."""

    def __call__(self, action: Callable[[], T], /) -> T: ...


@dataclass(frozen=True, slots=True)
class TrialCallbacks:
    """A worker's callbacks for one trial (see `search.trial.run.Callbacks`)."""

    trial: Trial
    store: Store
    context: Context
    shared: Shared
    leases: Leases
    heartbeat: Heartbeat
    patiently: Patiently

    @property
    def title(self) -> str:
        return f"trial {self.trial.number}"

    def planned(self, plan: ChannelPlan, hash: str) -> TrialFolder | None:
        return self.patiently(lambda: self._planned(plan, hash))

    def timed(self, latency: Latency) -> None:
        self.patiently(lambda: self._timed(latency))

    def images(self, count: int) -> None:
        signals.check()
        self.heartbeat.check()

    def learned(self, before: float | None, curve: Sequence[float], cost: Sequence[float]) -> None:
        spec = self.context.spec
        figures = Figures(accuracy_before=before, curve=tuple(curve), cost=tuple(round(seconds, 3) for seconds in cost))

        def attempt() -> None:
            self._store(figures)
            mflops = self._figures().mflops
            assert mflops is not None  # `planned` has stored it
            values = [spec.score(mflops, one) for one in curve] if spec.objectives[0] == "score" else curve
            report_curve(self.trial, spec, values)

        self.patiently(attempt)

    def epoch(self, number: int) -> None:
        if not self.patiently(lambda: self.leases.got_on(self.trial._trial_id)):
            raise Lost
        self.patiently(lambda: stop_if_hopeless(self.trial, self.context.spec, number))

    def _planned(self, plan: ChannelPlan, hash: str) -> TrialFolder | None:
        dense = self.context.dense_figures
        self._store(
            Figures(
                mflops=plan.mflops,
                params=plan.params,
                mflops_removed=1 - plan.mflops / dense.mflops,
                params_removed=1 - plan.params / dense.params,
                hash=hash,
                widths=plan.kept_widths,
            )
        )
        home = self.context.folder.trial(self.trial.number)
        write_trial(home, self.store.database.storage.get_trial(self.trial._trial_id))
        self._constrain({"mflops": plan.mflops, "size_mb": size_mb(plan.params)})
        return self._duplicate(hash)

    def _timed(self, latency: Latency) -> None:
        self._store(Figures(latency_ms=latency.median_ms))
        self._constrain({"latency_ms": latency.median_ms})

    def _store(self, figures: Figures) -> None:
        figures.store(self.store.database.storage, self.trial._trial_id)

    def _figures(self) -> Figures:
        return Figures.load(self.store.database.storage.get_trial(self.trial._trial_id))

    def _constrain(self, values: Mapping[str, float]) -> None:
        """Tell Optuna how the constraints on these values stand. Raises Skipped if one is broken."""
        limits = self.context.limits
        for name, excess in excesses(limits, values).items():
            constrain(self.trial, name, excess)
            if excess > 0:
                side, _, what = name.partition("_")
                raise Skipped(f"{_SIDES[side]} {limits[name]:g} {_UNITS[what]}, the constraint")

    def _duplicate(self, hash: str) -> TrialFolder | None:
        """The folder of a finished trial with the network that this one would end in, if one can be reached."""
        for other in self.store.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            figures = Figures.load(other)
            if figures.hash == hash and other.number != self.trial.number:
                files = self.shared.finished_folder(self.context.folder, other)
                if files is not None:  # None: its files are out of reach, so this trial trains itself
                    self._store(Figures(same_as=other.number if figures.same_as is None else figures.same_as))
                return files
        return None


def constrain(trial: Trial, name: str, excess: float) -> None:
    """Tell Optuna by how much a constraint is violated (0 or less: it is met)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a resumed trial has the same value set already
        trial.set_constraint(name, excess)

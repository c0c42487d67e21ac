"""Looking on at a trial: for Optuna, which is told what came out; for the limits; and for the claim on the trial."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from optuna.trial import Trial, TrialState

from pruner.channels.plan import ChannelPlan
from pruner.measurement.latency import Latency
from search import signals
from search.results.records import CURVE, WIDTHS, WORK, record
from search.sampling.stopping import report_curve, stop_if_hopeless
from search.storage.artifacts import Shared
from search.storage.folder import TrialFolder
from search.storage.leases import Claims, Lost
from search.storage.studies import Store
from search.storage.trial_file import write_trial
from search.trial.context import Context
from search.workers.heartbeat import Heart

T = TypeVar("T")


class Skipped(Exception):
    """The plan breaks a limit: no training."""


class Patiently(Protocol):
    """Does something with the database, and again while that is away."""

    def __call__(self, action: Callable[[], T], /) -> T: ...


@dataclass(frozen=True, slots=True)
class TrialWatch:
    """A worker's watch over one trial (see `search.trial.run.Watch`)."""

    trial: Trial
    store: Store
    context: Context
    shared: Shared
    claims: Claims
    heart: Heart
    patiently: Patiently

    @property
    def title(self) -> str:
        return f"trial {self.trial.number}"

    def planned(self, plan: ChannelPlan, fingerprint: str) -> TrialFolder | None:
        return self.patiently(lambda: self._planned(plan, fingerprint))

    def timed(self, latency: Latency) -> None:
        self.patiently(lambda: self._timed(latency))

    def images(self, count: int) -> None:
        signals.check()
        self.heart.check()

    def learned(self, before: float | None, curve: Sequence[float], work: Sequence[float]) -> None:
        spec = self.context.spec
        mflops = self.trial.user_attrs["mflops"]
        values = [spec.score(mflops, one) for one in curve] if spec.objectives[0] == "score" else curve

        def attempt() -> None:
            self.trial.set_user_attr("accuracy_before", before)
            self._keep(CURVE, list(curve))
            self._keep(WORK, [round(seconds, 3) for seconds in work])
            report_curve(self.trial, spec, values)

        self.patiently(attempt)

    def epoch(self, number: int) -> None:
        if not self.patiently(lambda: self.claims.got_on(self.trial._trial_id)):
            raise Lost
        self.patiently(lambda: stop_if_hopeless(self.trial, self.context.spec, number))

    def _planned(self, plan: ChannelPlan, fingerprint: str) -> TrialFolder | None:
        dense = self.context.dense_figures
        figures = {
            "mflops": plan.mflops,
            "params": plan.params,
            "mflops_removed": 1 - plan.mflops / dense.mflops,
            "params_removed": 1 - plan.params / dense.params,
            "fingerprint": fingerprint,
        }
        for name, value in figures.items():
            self.trial.set_user_attr(name, value)
        self._keep(WIDTHS, plan.kept_widths)
        home = self.context.folder.trial(self.trial.number)
        write_trial(home, self.store.database.storage.get_trial(self.trial._trial_id))
        limits = self.context.spec.limits
        if limits.mflops_at_most is not None:
            self._limit("mflops_at_most", plan.mflops - limits.mflops_at_most, f"over {limits.mflops_at_most:g} MFLOPs")
        if limits.mflops_at_least is not None:
            excess = limits.mflops_at_least - plan.mflops
            self._limit("mflops_at_least", excess, f"under {limits.mflops_at_least:g} MFLOPs")
        return self._twin(fingerprint)

    def _timed(self, latency: Latency) -> None:
        self.trial.set_user_attr("latency_ms", latency.median_ms)
        limit = self.context.spec.limits.latency_ms_at_most
        if limit is not None:
            self._limit("latency_ms_at_most", latency.median_ms - limit, f"over {limit:g} ms")

    def _keep(self, name: str, value: object) -> None:
        """Among Optuna's own attributes: the dashboard writes out the user's, on one long line each."""
        self.store.database.storage.set_trial_system_attr(self.trial._trial_id, name, value)  # type: ignore[arg-type]

    def _limit(self, name: str, excess: float, what: str) -> None:
        constrain(self.trial, name, excess)
        if excess > 0:
            raise Skipped(f"{what}, the limit")

    def _twin(self, fingerprint: str) -> TrialFolder | None:
        for other in self.store.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            if other.user_attrs.get("fingerprint") == fingerprint and other.number != self.trial.number:
                files = self.shared.finished_folder(self.context.folder, other)
                if files is not None:  # None: on another machine, and out of reach; this one trains for itself
                    original = record(other).same_as
                    self.trial.set_user_attr("same_as", other.number if original is None else original)
                return files
        return None


def constrain(trial: Trial, name: str, excess: float) -> None:
    """Tell Optuna by how much a limit is broken (0 or less: it is kept)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a continued trial: it is set already, to the same value
        trial.set_constraint(name, excess)

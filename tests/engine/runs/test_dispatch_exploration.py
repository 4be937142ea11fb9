"""Every interleaving of the lane: prompts, a cancel of the session, one of a run, a failed commit, and an end. No event
loop takes part; `lane_world` says how. Mistakes planted in the dispatch show that the exploration finds them."""

from collections.abc import Iterable

import pytest

from engine.records.run import IfBusy
from engine.runs.accepted import AcceptedRun, Stage
from engine.runs.dispatch import Cancellation, Entry, SessionDispatch
from tests.engine.runs.lane_world import Scenario, explore

E, R, I, S = IfBusy.ENQUEUE, IfBusy.REJECT, IfBusy.INTERRUPT, IfBusy.STEER  # noqa: E741

SCENARIOS = [
    Scenario((E, E, E)),
    Scenario((E, E, E), "close"),
    Scenario((E, E, E), "stop"),
    Scenario((E, E, E), session_cancels=2, run_cancels=0),
    Scenario((E, S, S)),
    Scenario((E, S, S), "close", run_cancels=0),
    Scenario((E, S, S), "stop", session_cancels=0),
    Scenario((E, E, I)),
    Scenario((E, I), "close"),
    Scenario((E, I, I), session_cancels=0),
    Scenario((S, I), "stop"),
    Scenario((E, S, I), session_cancels=0),
    Scenario((R, R, R), "close"),
    Scenario((R, I)),
    Scenario((R, E, I), run_cancels=0),
    Scenario((R, S, E), run_cancels=0),
    Scenario((E, E, E, E), session_cancels=1, run_cancels=0, failures=2),
]


def name(scenario: Scenario) -> str:
    """The scenario in a word."""
    return "-".join((*scenario.policies, scenario.end or "open", str(scenario.session_cancels)))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=name)
def test_every_run_ends_once_and_rightly_in_every_interleaving(scenario: Scenario) -> None:
    found = explore(scenario, lambda: SessionDispatch(queue_limit=10))
    assert not found.problem, "\n".join((found.problem, *found.trace))
    assert found.interleavings > 10_000


class EnterIgnoresTheFlag(SessionDispatch):
    def enter(self, run: AcceptedRun) -> Entry:
        reason, run.cancel_reason = run.cancel_reason, None
        entry = super().enter(run)
        run.cancel_reason = reason
        return entry


class EnterOvertakesEarlierRuns(SessionDispatch):
    def enter(self, run: AcceptedRun) -> Entry:
        self._waiting.remove(run)
        self._waiting.insert(0, run)
        return super().enter(run)


class EnterIgnoresTheActiveRun(SessionDispatch):
    def enter(self, run: AcceptedRun) -> Entry:
        active, self.active = self.active, None
        entry = super().enter(run)
        self.active = self.active or active  # type: ignore[redundant-expr]
        return entry


class CanceledRunGivesUpItsPlaceAtOnce(SessionDispatch):
    def leave(self, run: AcceptedRun) -> AcceptedRun | None:
        return None if run.is_canceled and self.active is not run else super().leave(run)

    def enter(self, run: AcceptedRun) -> Entry:
        entry = super().enter(run)
        if entry is Entry.CANCELED and self.active is run:
            self.active, run.stage = None, Stage.GONE
        return entry


class LeaveForgetsTheNext(SessionDispatch):
    def leave(self, run: AcceptedRun) -> AcceptedRun | None:
        run.stage = Stage.GONE
        if self.active is run:
            self.active = None
        return None


class LeaveTakesARunThatHasNotEntered(SessionDispatch):
    def _take_next(self) -> AcceptedRun | None:
        if self.active is not None or self._held or not self._waiting:
            return None
        run = self._waiting.pop(0)
        self._activate(run)
        return run


class WithdrawForgetsTheNext(SessionDispatch):
    def withdraw(self, run: AcceptedRun) -> AcceptedRun | None:
        self._waiting.remove(run)
        run.stage = Stage.GONE
        return None


class WithdrawLeavesTheReservation(SessionDispatch):
    def withdraw(self, run: AcceptedRun) -> AcceptedRun | None:
        run.stage = Stage.GONE
        return self._take_next()


class CancelSkipsEnteringRuns(SessionDispatch):
    def cancel_runs(self, runs: Iterable[AcceptedRun], reason: str) -> Cancellation:
        return super().cancel_runs([run for run in runs if run.stage is not Stage.ENTERING], reason)


class CancelSkipsTheActiveRun(SessionDispatch):
    def cancel_runs(self, runs: Iterable[AcceptedRun], reason: str) -> Cancellation:
        return super().cancel_runs([run for run in runs if run.stage is not Stage.ACTIVE], reason)


class CancelForgetsParkedRuns(SessionDispatch):
    def cancel_runs(self, runs: Iterable[AcceptedRun], reason: str) -> Cancellation:
        return Cancellation(super().cancel_runs(runs, reason).covered)


class CancelLeavesOrphansInTheQueue(SessionDispatch):
    def cancel_runs(self, runs: Iterable[AcceptedRun], reason: str) -> Cancellation:
        before = list(self._waiting)
        result = super().cancel_runs(runs, reason)
        self._waiting = before
        return result


class CancelOfOneRunTakesTheWholeLane(SessionDispatch):
    def cancel_runs(self, runs: Iterable[AcceptedRun], reason: str) -> Cancellation:
        return super().cancel_runs(self._members(), reason)


class CancelSticksToTheLane(SessionDispatch):
    is_poisoned = False

    def cancel(self, reason: str) -> Cancellation:
        self.is_poisoned = not self.is_idle
        return super().cancel(reason)

    def reserve(self, run: AcceptedRun) -> tuple[AcceptedRun, ...]:
        if self.is_poisoned:
            run.cancel("sticky")
        return super().reserve(run)


class SecondCancelClearsTheFlag(SessionDispatch):
    def cancel_runs(self, runs: Iterable[AcceptedRun], reason: str) -> Cancellation:
        flagged = [run for run in runs if run.is_canceled]
        result = super().cancel_runs(runs, reason)
        for run in flagged:
            run.cancel_reason = None
        return result


class SteeringTakesEnteringRuns(SessionDispatch):
    def take_steered(self, host: AcceptedRun) -> tuple[AcceptedRun, ...]:
        for run in self._waiting:
            if run.record.prompt.if_busy is S:
                run.stage = Stage.QUEUED
        return super().take_steered(host)


class SteeredRunsEndWithACanceledHost(SessionDispatch):
    def unfold(self, host: AcceptedRun) -> tuple[tuple[AcceptedRun, ...], tuple[AcceptedRun, ...]]:
        ending, returning = super().unfold(host)
        for run in returning:
            self._waiting.remove(run)
            run.stage = Stage.GONE
        return (*ending, *returning), ()


class ReturningRunsGoToTheEndOfTheQueue(SessionDispatch):
    def give_back(self, runs: Iterable[AcceptedRun]) -> None:
        returning = list(runs)
        super().give_back(returning)
        self._waiting.sort(key=returning.__contains__)


class SteeredRunsAreForgottenByACancel(SessionDispatch):
    def cancel_runs(self, runs: Iterable[AcceptedRun], reason: str) -> Cancellation:
        return super().cancel_runs([run for run in runs if run.stage is not Stage.FOLDED], reason)


class RejectLooksAtTheActiveRunOnly(SessionDispatch):
    @property
    def is_idle(self) -> bool:
        return self.active is None


class InterruptForgetsWhatWaits(SessionDispatch):
    def reserve(self, run: AcceptedRun) -> tuple[AcceptedRun, ...]:
        return tuple(one for one in super().reserve(run) if one.stage is Stage.ACTIVE)


class InterruptCoversWhatComesLater(SessionDispatch):
    def enter(self, run: AcceptedRun) -> Entry:
        if run.record.prompt.if_busy is I:
            self.cancel_runs([one for one in self._waiting if one is not run], "too much")
        return super().enter(run)


PLANTED: list[tuple[type[SessionDispatch], Scenario]] = [
    (EnterIgnoresTheFlag, Scenario((E, E, E), "close")),
    (EnterOvertakesEarlierRuns, Scenario((E, E, E))),
    (EnterIgnoresTheActiveRun, Scenario((E, E, E))),
    (CanceledRunGivesUpItsPlaceAtOnce, Scenario((E, E, E))),
    (LeaveForgetsTheNext, Scenario((E, E, E))),
    (LeaveTakesARunThatHasNotEntered, Scenario((E, E, E))),
    (WithdrawForgetsTheNext, Scenario((E, E, E))),
    (WithdrawLeavesTheReservation, Scenario((E, E, E))),
    (CancelSkipsEnteringRuns, Scenario((E, E, E))),
    (CancelSkipsTheActiveRun, Scenario((E, E, E))),
    (CancelForgetsParkedRuns, Scenario((E, E, E))),
    (CancelLeavesOrphansInTheQueue, Scenario((E, E, E))),
    (CancelOfOneRunTakesTheWholeLane, Scenario((E, E, E))),
    (CancelSticksToTheLane, Scenario((E, E, E))),
    (SecondCancelClearsTheFlag, Scenario((E, E, E))),
    (SteeringTakesEnteringRuns, Scenario((E, S, S))),
    (SteeredRunsEndWithACanceledHost, Scenario((E, S, S))),
    (ReturningRunsGoToTheEndOfTheQueue, Scenario((E, S, E))),
    (SteeredRunsAreForgottenByACancel, Scenario((E, S, S))),
    (RejectLooksAtTheActiveRunOnly, Scenario((E, R))),
    (InterruptForgetsWhatWaits, Scenario((E, E, I))),
    (InterruptCoversWhatComesLater, Scenario((E, I, E))),
]


@pytest.mark.parametrize(("mistaken", "scenario"), PLANTED, ids=[made.__name__ for made, _ in PLANTED])
def test_exploration_finds_the_planted_mistake(mistaken: type[SessionDispatch], scenario: Scenario) -> None:
    found = explore(scenario, lambda: mistaken(queue_limit=10))
    assert found.problem
    assert found.trace

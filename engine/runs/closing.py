"""Closing: how the runs of a workspace end together, when it closes (R23) and when the server stops (R24)."""

from collections.abc import Awaitable, Iterable

import structlog
import trio

from engine.errors import StoreError
from engine.records.ids import RunId
from engine.runs.accepted import AcceptedRun
from engine.runs.cancel import Canceler
from engine.runs.lanes import Lanes

logger = structlog.get_logger(__name__)


class Closing:
    """Ends the runs of one workspace. Whoever calls it has refused new prompts before."""

    def __init__(self, lanes: Lanes, canceler: Canceler, *, bound_s: float) -> None:
        self._lanes = lanes
        self._canceler = canceler
        self.bound_s = bound_s  # of the shielded wait for the endings
        self._draining = trio.CancelScope()

    async def close(self, reason: str) -> None:
        """Cancel every run, and return when each has committed its ending, or the bound is reached (R23)."""
        self._lanes.hold()
        with trio.move_on_after(self.bound_s, shield=True) as scope:
            await _recorded(self._canceler.cancel_all(reason))
            await wait_settled(self._lanes.all_runs())
        _report(scope)

    async def drain(self, drain_s: float, reason: str = "the server stopped") -> None:
        """Start nothing more, let what is active finish for a while, then cancel it. What waits stays for the next
        start (R24)."""
        self._lanes.hold()
        for run in self._lanes.all_runs():
            run.park()
        with self._draining:
            self._draining.deadline = trio.current_time() + drain_s
            await wait_settled(self._begun())
        with trio.move_on_after(self.bound_s, shield=True) as scope:
            await _recorded(self._canceler.cancel_begun(reason))
            await wait_settled(self._begun())
            for run in self._lanes.all_runs():  # who is being accepted is told so, and its row is written (R02)
                await run.wait_known()
        _report(scope)

    def stop_waiting(self) -> None:
        """Cut the drain short: the second signal (R24)."""
        self._draining.cancel()

    def _begun(self) -> tuple[AcceptedRun, ...]:
        return tuple(run for run in self._lanes.all_runs() if run.has_begun)


async def wait_settled(runs: Iterable[AcceptedRun]) -> None:
    """Return when nothing more will happen to any of these runs."""
    await trio.lowlevel.checkpoint()
    for run in runs:
        await run.wait_settled()


async def _recorded(cancel: Awaitable[tuple[RunId, ...]]) -> None:
    """A cancel whose record may fail: the runs end canceled all the same, if the store takes that."""
    await trio.lowlevel.checkpoint()
    try:
        await cancel
    except StoreError as error:
        logger.error("a cancel on closing was not recorded", error=str(error))


def _report(scope: trio.CancelScope) -> None:
    if scope.cancelled_caught:
        logger.error("runs did not end in time; the next start ends them")

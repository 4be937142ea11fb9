"""EndingCommit: the commit of an ending, seen to until the store has taken it (R18, R22)."""

from collections.abc import Awaitable, Callable

import structlog
import trio

from engine.errors import StoreDamaged, StoreError, StoreUnavailable
from engine.events.log import Pending
from engine.records.change import Ending, SettleRun, Write
from engine.records.run import RunError, RunState
from engine.runs.accepted import AcceptedRun

RETRY_FIRST_S = 0.05  # a store that is busy or full is asked again, at first after this long, later more rarely
RETRY_LAST_S = 5.0
UNSTORABLE = RunError("store", "The answer could not be stored", "The store refused it; the server's log says why.")

logger = structlog.get_logger(__name__)


class EndingCommit:
    """The commit of an ending, submitted when it is made, and again until the store has taken it (R18, R22).
    `before_retry` is awaited ahead of each further try: the first is made in the step in which the ending was."""

    def __init__(
        self,
        runs: tuple[AcceptedRun, ...],
        writes: tuple[Write, ...],
        submit: Callable[[tuple[Write, ...]], Pending | None],
        before_retry: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._runs = runs
        self._writes = writes
        self._submit = submit
        self._before_retry = before_retry
        self._pending = submit(writes)
        self.trouble: StoreUnavailable | None = None  # why the store has not taken it yet

    async def wait(self) -> None:
        """Return when it is committed, or refused even as a bare fact. Canceled, it can be waited for again."""
        pause = RETRY_FIRST_S
        await trio.lowlevel.checkpoint()
        while not await self._is_over():
            await trio.sleep(pause)
            pause = min(2 * pause, RETRY_LAST_S)
            if self._before_retry is not None:
                await self._before_retry()
            self._pending = self._submit(self._writes)
        for run in self._runs:
            run.mark_settled()

    async def _is_over(self) -> bool:
        run_id = self._runs[0].record.id
        if self._pending is None:
            await trio.lowlevel.checkpoint()
            return False
        try:
            await self._pending.wait()
        except StoreUnavailable as error:
            self.trouble = error
            logger.warning("settle failed, trying again", run_id=run_id, error=str(error))
            if isinstance(error, StoreDamaged):  # its words may stand on a page that is gone: the fact elsewhere
                self._writes = bare(self._writes)
            return False  # noqa: ASYNC910  (it has waited)
        except StoreError as error:
            logger.error("settle was refused", run_id=run_id, error=str(error))
            wordless = bare(self._writes)
            if wordless != self._writes:
                self._writes = wordless
                return False  # noqa: ASYNC910
            # Not even that: the next start sees to it.
        return True  # noqa: ASYNC910


def bare(writes: tuple[Write, ...]) -> tuple[Write, ...]:
    """The endings of these writes without what they would say: a last resort, so that every run ends (R18)."""
    return tuple(
        SettleRun(write.run_id, without_words(write.planned), without_words(write.if_canceled))
        if isinstance(write, SettleRun)
        else write
        for write in writes
    )


def without_words(ending: Ending) -> Ending:
    """The ending as a bare fact."""
    if ending.state is RunState.CANCELED:
        return as_canceled(ending)
    state = RunState.FAILED if ending.state is RunState.COMPLETED else ending.state
    return Ending(state=state, at_us=ending.at_us, error=UNSTORABLE)


def as_canceled(ending: Ending) -> Ending:
    """A bare canceled ending at the same moment."""
    return Ending(state=RunState.CANCELED, at_us=ending.at_us)

"""Answering: the agent at work on one turn, in a task of its own.

A run must reach its end whatever its agent does or fails to do (R22). So the agent is not called by the run's task but
beside it, in the same nursery: the run waits for it, cancels it, and after a bounded wait ends without it.
"""

import structlog
import trio

from engine.agents.protocol import Agent
from engine.errors import CountermandError
from engine.runs.turn import RunTurn

PASSING = (trio.Cancelled, KeyboardInterrupt)

logger = structlog.get_logger(__name__)


class Answering:
    """One call of an agent. `problem` is what it raised, once it is done."""

    def __init__(self, agent: Agent, turn: RunTurn) -> None:
        self._agent = agent
        self._turn = turn
        self._scope = trio.CancelScope()
        self._done = trio.Event()
        self.problem: BaseException | None = None
        self.has_returned = False

    async def run(self) -> None:
        """The agent's task. What the agent raises is kept, not raised."""
        try:
            with self._scope:
                try:
                    await self._agent.respond(self._turn)
                    self.has_returned = True
                # The agent's catch-all: whatever it is, the run ends as failed (R20). Not only `Exception`: a library
                # for asyncio leaks a CancelledError of its own, and a command line that is called as a tool a
                # SystemExit.
                except BaseException as error:  # noqa: ASYNC103
                    passing, problem = split(error)
                    self.problem = problem
                    if passing is not None:
                        raise passing from None  # noqa: ASYNC104
        finally:
            self._done.set()
        await trio.lowlevel.checkpoint_if_cancelled()

    async def wait(self, *, unwind_s: float) -> None:
        """Return when the agent has. Canceled, cancel it, and wait at most `unwind_s` for it to clean up."""
        try:
            await self._done.wait()
        finally:
            if not self._done.is_set():
                self._scope.cancel()
                with trio.move_on_after(unwind_s, shield=True) as bound:
                    await self._done.wait()
                if bound.cancelled_caught:
                    logger.error("the agent does not stop; its run ends without it", run_id=self._turn.run_id)


def split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """What is not an agent's to keep (Trio's cancellation, Ctrl-C), and what it failed with."""
    if isinstance(error, BaseExceptionGroup):
        passing, rest = error.split(PASSING)
        return passing, first_leaf(rest) if rest is not None else None
    return (error, None) if isinstance(error, PASSING) else (None, error)


def first_leaf(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that a person is told of: the first of the group that names itself, else the first."""
    leaves: list[BaseException] = []
    stack: list[BaseException] = [group]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack.extend(reversed(error.exceptions))
        else:
            leaves.append(error)
    return next((leaf for leaf in leaves if isinstance(leaf, CountermandError)), leaves[0])

"""The server dies right after each kind of commit of a run's life, and another one takes up what it left."""

from typing import Any

import pytest

from engine.backend import NewWorkspace, open_backend
from engine.records.change import QueueRun, StartRun
from engine.records.run import RunState
from engine.settings import EngineSettings
from engine.store.sqlite import open_sqlite_store
from tests.doubles.engine import ScriptedAgent
from tests.doubles.holding_store import DyingStore, Picks, accepts, cancels, queues, settles, starts
from tests.doubles.invariants import check_invariants
from tests.doubles.stages import AHEAD, HELD, At, open_staged


def takes_in(run_id: str) -> Picks:
    """What makes this run part of another's turn."""
    return lambda write: isinstance(write, StartRun) and write.run_id == run_id and write.steered_into is not None


def gives_back(run_id: str) -> Picks:
    """What puts a steered run back into the queue."""
    return lambda write: isinstance(write, QueueRun) and write.run_id == run_id


DEATHS: list[tuple[str, At, Picks, RunState, str]] = [
    ("its acceptance", At.ENTRY, accepts(HELD), RunState.COMPLETED, "finish"),
    ("its start", At.AGENT, starts(HELD), RunState.INTERRUPTED, "finish"),
    ("its ending", At.AGENT, settles(HELD), RunState.COMPLETED, "finish"),
    ("its cancel", At.AGENT, cancels(HELD), RunState.CANCELED, "cancel"),
    ("its canceled ending", At.AGENT, settles(HELD), RunState.CANCELED, "cancel"),
    ("its queueing", At.QUEUE, queues(HELD), RunState.COMPLETED, "finish"),
    ("its cancel in the queue", At.QUEUE, cancels(HELD), RunState.CANCELED, "cancel"),
    ("the ending of the one before it", At.QUEUE, settles(AHEAD), RunState.COMPLETED, "finish"),
    ("its being taken in", At.STEERED, takes_in(HELD), RunState.INTERRUPTED, "finish"),
    ("its cancel after being taken in", At.STEERED, cancels(HELD), RunState.CANCELED, "cancel"),
]


@pytest.mark.parametrize(("after", "at", "last", "state", "act"), DEATHS, ids=[death[0] for death in DEATHS])
async def test_server_dies_right_after(
    after: str, at: At, last: Picks, state: RunState, act: str, autojump_clock: object, tmp_path: object
) -> None:
    settings: Any = {"settle_s": 0.1, "unwind_s": 0.1}
    async with open_sqlite_store(None) as disk:
        async with open_staged(
            at, tmp_path, beneath=lambda _: DyingStore(disk, last), check=False, **settings
        ) as staged:
            if act == "cancel":
                await staged.workspace.cancel_run(HELD)
            staged.release()
        agent = ScriptedAgent()
        async with open_backend(
            EngineSettings(data_dir=None), environ={}, agent=agent, wrap_store=lambda _: disk
        ) as backend:
            workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path)))
            ended = await workspace.wait_run(HELD, 1)
            assert ended.state is state
            await check_invariants(backend, workspace)
            again = [turn.run_id for turn in agent.turns]
            assert (HELD in again) is (after in {"its acceptance", "its queueing", "the ending of the one before it"})

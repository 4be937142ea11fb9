"""What holds after everything: the one checker that runs behind every race (R07-R19, R27)."""

from itertools import chain

import trio
import trio.testing

from engine.backend import Backend
from engine.records.event import SessionCreated
from engine.records.ids import WorkspaceId, is_child_session
from engine.store.check import check_store
from engine.store.protocol import Store
from engine.store.read_only import open_snapshot
from engine.store.sqlite import SqliteStore
from engine.workspace import Workspace
from tests.doubles import record

SETTLE_LIMIT = 120.0  # virtual seconds that whatever still runs may take
ALL = 1_000_000


async def check_invariants(backend: Backend, workspace: Workspace) -> None:
    """Wait until the workspace is at rest, then check that nothing is left over, and what is stored."""
    with trio.fail_after(SETTLE_LIMIT):
        for handle in workspace.lanes.all_runs():
            await handle.wait_settled()
    await trio.testing.wait_all_tasks_blocked()
    assert not workspace.lanes.all_runs(), "a handle is left"
    assert not workspace.lanes.all_lanes(), "a lane is left"
    assert not workspace.is_busy
    assert backend.statistics().slots_used == 0, "a slot is left"
    await check_record(backend.store, workspace.id)
    check_database(backend.store)


def check_database(store: Store) -> None:
    """What `countermand check` looks at, of the store behind the doubles: what it would call wrong, is."""
    while not isinstance(store, SqliteStore):
        store = store.inner  # type: ignore[attr-defined]
    database = store._database
    if database.reader is database.writer:
        problems = [problem for part in check_store(database.reader) for problem in part.problems]
    else:
        with open_snapshot(database.path) as snapshot:
            problems = [problem for part in check_store(snapshot.db) for problem in part.problems]
    assert not problems, problems


async def check_record(store: Store, workspace_id: WorkspaceId) -> None:
    """Check the log, the runs and the turns of a workspace at rest against each other. All of it is in the store: it
    may be that of a server that is gone."""
    events = await store.events_after(workspace_id, 0, limit=ALL)
    runs = await store.runs(workspace_id, limit=ALL)
    sessions = dict.fromkeys(run.session_id for run in reversed(runs))
    made = {event.body.session.id: None for event in events if isinstance(event.body, SessionCreated)}
    sessions |= {session_id: None for session_id in made if is_child_session(session_id)}
    messages = [await store.messages(workspace_id, session_id) for session_id in sessions]
    record.check(record.Record(events, runs, tuple(chain.from_iterable(messages))))

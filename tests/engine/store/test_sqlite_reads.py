"""Reads: order, filters, and what a model may see."""

import pytest

from engine.records.change import CreateMessage, CreateSession, UpdateSession
from engine.records.ids import MessageId, RunId, SessionId, WorkspaceId
from engine.records.message import Role
from engine.records.run import RunState
from engine.store.protocol import EventRange, Store
from tests.engine.store.samples import (
    AT,
    S,
    W,
    accept,
    cancel,
    make_messages,
    make_run,
    make_workspace,
    message,
    numbers,
    session,
    settle,
    start,
    write,
)


def ids(rows: object) -> list[str]:
    assert isinstance(rows, list)
    return [row.id for row in rows]


async def test_sessions_are_top_level_and_the_latest_update_comes_first(store: Store) -> None:
    await write(store, CreateSession(session("b", at_us=AT + 2)), CreateSession(session("a", at_us=AT + 1)))
    await write(store, CreateSession(session("child", parent="b", at_us=AT + 9)))
    assert ids(await store.sessions(W)) == ["b", "a", S]
    await write(store, UpdateSession(session_id=S, at_us=AT + 3))
    assert ids(await store.sessions(W)) == [S, "b", "a"]
    assert await store.session(W, SessionId("child")) is not None


async def test_workspaces_do_not_see_each_other(store: Store) -> None:
    await make_workspace(store, "other")
    await make_messages(store, message("m", role=Role.USER))
    await make_run(store, "r")
    other = WorkspaceId("other")
    assert await store.messages(other, S) == await store.user_messages(other, None) == []
    assert await store.message(other, MessageId("m")) is None
    assert await store.run(other, RunId("r")) is None
    assert await store.runs(other) == await store.unsettled_runs(other) == []
    assert ids(await store.sessions(other)) == [S]


async def test_messages_come_turn_by_turn_and_in_the_order_of_writing_within(store: Store) -> None:
    await make_messages(store, message("a", turn=2), message("b", turn=1), message("c", turn=2), message("d", turn=1))
    assert ids(await store.messages(W, S)) == ["b", "d", "a", "c"]


async def test_the_messages_of_a_run_are_in_the_order_of_writing_over_sessions(store: Store) -> None:
    await write(store, CreateSession(session("child", parent=S)))
    await make_messages(store, message("a", run="r"), message("b", run="r", session="child"), message("c", run="other"))
    assert ids(await store.run_messages(W, RunId("r"))) == ["a", "b"]


async def test_messages_of_users_come_newest_first(store: Store) -> None:
    await write(store, CreateSession(session("other")), CreateSession(session("child", parent=S)))
    await make_messages(
        store,
        message("e", role=Role.USER, session="child"),
        message("a", role=Role.USER),
        message("b", role=Role.ASSISTANT),
        message("c", role=Role.USER, session="other"),
        message("d", role=Role.USER),
    )
    assert ids(await store.user_messages(W, None)) == ["d", "c", "a"]
    assert ids(await store.user_messages(W, S)) == ["d", "a"]
    assert ids(await store.user_messages(W, SessionId("child"))) == ["e"]


async def test_history_is_what_came_before_the_turn(store: Store) -> None:
    await make_messages(store, *(message(str(turn), turn=turn) for turn in (1, 2, 3, 4)))
    assert ids(await store.history(W, S, 3)) == ["1", "2"]
    assert await store.history(W, SessionId("other"), 3) == []


async def test_r09_history_leaves_out_what_was_canceled_before_it_began(store: Store) -> None:
    for seq, id in enumerate(("before", "during", "fine", "failed"), 1):
        await write(store, accept(id, seq), CreateMessage(message(f"{id} m", turn=seq, run=id)))
    await write(store, cancel("before"), settle("before"))
    await write(store, start("during"), cancel("during"), settle("during"))
    await write(store, start("fine"), settle("fine"))
    assert ids(await store.history(W, S, 99)) == ["during m", "fine m", "failed m"]
    assert len(await store.messages(W, S)) == 4


async def test_history_begins_with_the_summary(store: Store) -> None:
    await make_messages(
        store,
        message("a", turn=1),
        message("b", turn=2),
        message("summary", turn=2),
        message("c", turn=2),
        message("d", turn=3),
    )
    await write(store, UpdateSession(session_id=S, at_us=AT, summary_message_id=MessageId("summary")))
    assert ids(await store.history(W, S, 99)) == ["summary", "c", "d"]
    await write(store, UpdateSession(session_id=S, at_us=AT, summary_message_id=MessageId("gone")))
    assert ids(await store.history(W, S, 99)) == ["a", "b", "summary", "c", "d"]


async def test_runs_come_newest_first_and_can_be_filtered_and_paged(store: Store) -> None:
    await write(store, CreateSession(session("other")))
    await make_run(store, "a", 1, state=RunState.COMPLETED)
    await make_run(store, "b", 2)
    await write(store, accept("c", 3, session="other"), accept("d", 4))
    assert ids(await store.runs(W)) == ["d", "c", "b", "a"]
    assert ids(await store.runs(W, session_id=S)) == ["d", "b", "a"]
    assert ids(await store.runs(W, states=[RunState.COMPLETED, RunState.ACTIVE])) == ["b", "a"]
    assert ids(await store.runs(W, limit=2)) == ["d", "c"]
    assert ids(await store.runs(W, before=3, limit=1)) == ["b"]
    assert ids(await store.runs(W, session_id=S, states=[RunState.ACCEPTED], before=9, limit=9)) == ["d"]


async def test_r25_runs_that_have_not_ended_come_in_accept_order(store: Store) -> None:
    await make_workspace(store, "other")
    await write(store, accept("b", 2), accept("a", 1), accept("c", 3), start("c"), start("a"), settle("a"))
    await write(store, accept("x", 1, workspace="other"), workspace="other")
    assert ids(await store.unsettled_runs(W)) == ["b", "c"]
    assert ids(await store.unsettled_runs(W, limit=1)) == ["b"]
    assert ids(await store.unsettled_runs(W, after=2)) == ["c"]
    assert await store.unsettled_counts() == {W: 2, WorkspaceId("other"): 1}


async def test_the_highest_accept_number_is_told(store: Store) -> None:
    assert await store.latest_run_seq(W) == await store.latest_run_seq(WorkspaceId("unknown")) == 0
    await write(store, accept("a", 5), accept("b", 3))
    assert await store.latest_run_seq(W) == 5


async def test_r28_events_are_read_in_order_from_a_number_on(store: Store) -> None:
    await make_messages(store, *(message(str(n)) for n in range(5)))
    assert numbers(await store.events_after(W, 2, limit=3)) == [3, 4, 5]
    assert numbers(await store.events_after(W, 6, limit=3)) == []
    assert await store.event_range(W) == EventRange(1, 6)


async def test_r28_the_events_of_one_run_are_read_alone(store: Store) -> None:
    await write(store, accept("a", 1), accept("b", 2), start("a"), start("b"), settle("a"))
    assert numbers(await store.events_after(W, 0, limit=9, run_id=RunId("a"))) == [2, 4, 6, 7]
    assert numbers(await store.events_after(W, 2, limit=2, run_id=RunId("a"))) == [4, 6]


async def test_r28_events_are_read_up_to_a_size_but_never_none_for_that(store: Store) -> None:
    await make_messages(store, *(message(str(n)) for n in range(5)))
    whole = await store.events_after(W, 0, limit=99)
    size = len(await store.events_after(W, 0, limit=99, max_bytes=1 << 20))
    assert size == len(whole) == 6
    assert numbers(await store.events_after(W, 0, limit=99, max_bytes=1)) == [1]
    assert numbers(await store.events_after(W, 5, limit=99, max_bytes=1)) == [6]
    some = await store.events_after(W, 0, limit=99, max_bytes=900)
    assert numbers(some) == list(range(1, len(some) + 1))
    assert 1 < len(some) < 6


async def test_an_unknown_workspace_is_empty(empty_store: Store) -> None:
    assert await empty_store.event_range(W) == EventRange(0, 0)
    assert await empty_store.sessions(W) == []
    assert await empty_store.workspaces() == []
    assert await empty_store.settings(W) == await empty_store.settings(None) == {}


@pytest.mark.parametrize("missing", ["session", "message", "run", "run_by_key"])
async def test_what_is_not_there_is_none(store: Store, missing: str) -> None:
    assert await getattr(store, missing)(W, "missing") is None

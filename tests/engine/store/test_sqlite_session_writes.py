"""Sessions and messages: partial updates, counts, and the event of each write."""

import pytest

from engine.errors import Conflict, StoreError
from engine.records.change import (
    Announce,
    CreateMessage,
    CreateSession,
    DeleteMessage,
    DeleteSession,
    PutMessage,
    UpdateMessage,
    UpdateSession,
)
from engine.records.event import (
    AgentFinished,
    ConfigChanged,
    MessageCreated,
    MessageDeleted,
    MessageUpdated,
    SessionCreated,
    SessionDeleted,
    SessionUpdated,
)
from engine.records.ids import MessageId, RunId, SessionId
from engine.records.message import (
    Binary,
    Finish,
    FinishReason,
    Reasoning,
    Role,
    ShellCommand,
    Text,
    ToolCall,
    ToolResult,
)
from engine.records.run import RunState
from engine.records.session import Todo
from engine.store.protocol import Store
from tests.engine.store.samples import (
    AT,
    S,
    W,
    kinds,
    make_messages,
    make_run,
    message,
    numbers,
    session,
    with_text,
    write,
)


async def test_a_new_session_can_be_read_and_its_event_tells_the_same(store: Store) -> None:
    new = session("other", title="Other", parent=S)
    committed = await write(store, CreateSession(new))
    (event,) = committed.events
    assert event.body == SessionCreated(new)
    assert (event.session_id, event.run_id, event.seq, event.at_us) == ("other", None, 2, AT)
    assert await store.session(W, new.id) == new


async def test_a_session_id_that_is_taken_is_a_conflict(store: Store) -> None:
    with pytest.raises(Conflict, match="already taken"):
        await write(store, CreateSession(session(title="Second")))
    assert (await store.session(W, S)) == session()


async def test_an_update_changes_what_it_names_and_nothing_else(store: Store) -> None:
    todos = (Todo("write tests", "in_progress", "writing tests"),)
    await write(store, UpdateSession(session_id=S, at_us=AT + 1, title="Named"))
    await write(store, UpdateSession(session_id=S, at_us=AT + 2, todos=todos, prompt_tokens=10))
    committed = await write(store, UpdateSession(session_id=S, at_us=AT + 3, completion_tokens=3))
    now = await store.session(W, S)
    assert now is not None
    assert (now.title, now.todos, now.prompt_tokens, now.completion_tokens) == ("Named", todos, 10, 3)
    assert now.updated_at_us == AT + 3
    assert [event.body for event in committed.events] == [SessionUpdated(now)]


async def test_costs_are_added(store: Store) -> None:
    for cost in (0.25, 0.5):
        await write(store, UpdateSession(session_id=S, at_us=AT, add_cost=cost))
    now = await store.session(W, S)
    assert now is not None
    assert now.cost == 0.75


async def test_an_update_that_comes_late_does_not_turn_the_time_back(store: Store) -> None:
    await write(store, UpdateSession(session_id=S, at_us=AT + 9))
    await write(store, UpdateSession(session_id=S, at_us=AT + 1))
    now = await store.session(W, S)
    assert now is not None
    assert now.updated_at_us == AT + 9


async def test_a_title_is_given_only_while_it_is_the_expected_one(store: Store) -> None:
    named_by_hand = UpdateSession(session_id=S, at_us=AT, title="Mine", only_if_title="New")
    named_by_model = UpdateSession(session_id=S, at_us=AT, title="Generated", only_if_title="New")
    assert (await write(store, named_by_hand)).applied == (True,)
    late = await write(store, named_by_model)
    assert (late.applied, late.events) == ((False,), ())


async def test_the_summary_can_be_set_and_taken_away(store: Store) -> None:
    await write(store, UpdateSession(session_id=S, at_us=AT, summary_message_id=MessageId("m")))
    now = await store.session(W, S)
    assert now is not None
    assert now.summary_message_id == "m"
    await write(store, UpdateSession(session_id=S, at_us=AT, summary_message_id=None))
    assert await store.session(W, S) == session()


@pytest.mark.parametrize(
    "late",
    [
        UpdateSession(session_id=SessionId("gone"), at_us=AT, title="x"),
        DeleteSession(SessionId("gone")),
        CreateMessage(message("m", session="gone")),
        PutMessage(message("m", session="gone")),
        UpdateMessage(message("m")),
        DeleteMessage(MessageId("m")),
    ],
    ids=lambda late: type(late).__name__,
)
async def test_a_write_to_what_is_gone_does_not_apply_and_tells_nobody(
    store: Store, late: UpdateSession | DeleteSession | CreateMessage | PutMessage | UpdateMessage | DeleteMessage
) -> None:
    committed = await write(store, late)
    assert (committed.applied, committed.events) == ((False,), ())
    assert await store.messages(W, S) == []


async def test_a_message_keeps_all_of_its_parts(store: Store) -> None:
    parts = (
        Reasoning("hm", "sig", AT, AT + 1),
        Text("sagt «so» 🙂"),
        ToolCall("c", "view", '{"path":"x"}', finished=True),
        ToolResult("c", "view", "…", metadata="{}", data="AAAA", mime_type="image/png", is_error=True),
        Binary("a.png", "image/png", "AAAA"),
        ShellCommand("ls", "x\n", 1),
        Finish(FinishReason.ERROR, AT, "Title", "Details"),
    )
    whole = message("m", parts=parts, run="r", role=Role.TOOL)
    committed = await write(store, CreateMessage(whole))
    assert await store.message(W, whole.id) == whole
    (event,) = committed.events
    assert event.body == MessageCreated(whole)
    assert (event.session_id, event.run_id) == (S, "r")
    assert (await store.events_after(W, 1, limit=1))[0].body == event.body


async def test_messages_are_counted_and_freshen_their_session_without_an_event(store: Store) -> None:
    await write(store, CreateMessage(message("a")), CreateMessage(message("b", at_us=AT + 5)))
    now = await store.session(W, S)
    assert now is not None
    assert (now.message_count, now.updated_at_us) == (2, AT + 5)
    await write(store, DeleteMessage(MessageId("a")))
    now = await store.session(W, S)
    assert now is not None
    assert now.message_count == 1
    assert kinds(await store.events_after(W, 1, limit=9)) == ["message_created", "message_created", "message_deleted"]


async def test_a_message_id_that_is_taken_is_a_conflict_and_counts_nothing(store: Store) -> None:
    await make_messages(store, message("m"))
    with pytest.raises(Conflict):
        await write(store, CreateMessage(message("m", "again")))
    now = await store.session(W, S)
    assert now is not None
    assert now.message_count == 1


async def test_a_quiet_update_is_stored_and_told_to_nobody(store: Store) -> None:
    before = message("m", "so", run="r")
    await make_messages(store, before)
    quiet = await write(store, UpdateMessage(with_text(before, "so far"), quiet=True))
    assert (quiet.applied, quiet.events) == ((True,), ())
    loud = await write(store, UpdateMessage(with_text(before, "so far, so good")))
    assert [event.body for event in loud.events] == [MessageUpdated(with_text(before, "so far, so good"))]
    assert loud.events[0].run_id == "r"
    assert await store.messages(W, S) == [with_text(before, "so far, so good")]


async def test_a_message_is_put_whatever_became_of_it_before(store: Store) -> None:
    last = message("m", "all of it", run="r")
    created = await write(store, PutMessage(last))
    assert [event.body for event in created.events] == [MessageCreated(last)]
    again = await write(store, PutMessage(last))
    assert (again.applied, again.events) == ((True,), ())
    updated = await write(store, PutMessage(with_text(last, "more than all")))
    assert [event.body for event in updated.events] == [MessageUpdated(with_text(last, "more than all"))]
    assert await store.messages(W, S) == [with_text(last, "more than all")]
    now = await store.session(W, S)
    assert now is not None
    assert now.message_count == 1


async def test_an_update_never_moves_a_message_to_another_session(store: Store) -> None:
    await write(store, CreateSession(session("other")), CreateMessage(message("m")))
    assert (await write(store, UpdateMessage(message("m", "x", session="other")))).applied == (False,)
    assert await store.messages(W, S) == [message("m")]


async def test_a_deleted_message_is_told_as_it_was(store: Store) -> None:
    await make_messages(store, message("m", run="r"))
    (event,) = (await write(store, DeleteMessage(MessageId("m")))).events
    assert event.body == MessageDeleted(message("m", run="r"))
    assert (event.run_id, event.session_id) == ("r", S)
    assert await store.message(W, MessageId("m")) is None


async def test_a_deleted_session_takes_its_messages_runs_and_children_and_leaves_the_log(store: Store) -> None:
    await make_run(store, "r", state=RunState.COMPLETED)
    await write(
        store, CreateSession(session("child", parent=S)), CreateSession(session("other")),
        *(CreateMessage(message(id, run="r", session=of)) for id, of in (("m", S), ("n", "child"))),
    )  # fmt: skip
    last, child = await store.session(W, S), await store.session(W, SessionId("child"))
    assert last is not None
    assert child is not None
    first, event = (await write(store, DeleteSession(S))).events
    assert (first.body, event.body) == (SessionDeleted(child), SessionDeleted(last))
    assert event.session_id == S
    assert await store.session(W, S) is None
    assert await store.run(W, RunId("r")) is None
    assert await store.messages(W, S) == await store.run_messages(W, RunId("r")) == []
    assert await store.session(W, SessionId("child")) is None
    assert await store.session(W, SessionId("other")) is not None
    assert event.seq is not None
    assert numbers(await store.events_after(W, 0, limit=99)) == list(range(1, event.seq + 1))
    assert await store.latest_run_seq(W) == 1, "a number that was given is never given again"


@pytest.mark.parametrize("state", [RunState.ACCEPTED, RunState.ACTIVE])
async def test_r18_a_session_with_a_run_that_has_not_ended_is_not_deleted(store: Store, state: RunState) -> None:
    await make_run(store, "r", state=state)
    assert (await write(store, DeleteSession(S))).applied == (False,)
    assert await store.run(W, RunId("r")) is not None


async def test_an_announcement_carries_the_title_of_the_moment(store: Store) -> None:
    await write(store, UpdateSession(session_id=S, at_us=AT, title="Named"))
    (event,) = (await write(store, Announce(AgentFinished(S, RunId("r"))))).events
    assert event.body == AgentFinished(S, RunId("r"), "Named")
    assert (event.session_id, event.run_id) == (S, "r")
    (event,) = (await write(store, Announce(ConfigChanged(W)))).events
    assert event.body == ConfigChanged(W)
    assert (event.session_id, event.run_id) == (None, None)


async def test_text_that_is_no_text_is_refused_without_a_trace(store: Store) -> None:
    with pytest.raises(StoreError, match="cannot hold this"):
        await write(store, CreateMessage(message("m", "\ud800")))
    now = await store.session(W, S)
    assert now is not None
    assert now.message_count == 0

"""What holds of the record of a workspace at rest: its log, its runs and its messages, laid beside each other (R07-R19,
R27). Plain functions of what was read; whoever calls them has read it."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise

import msgspec

from engine.records.event import (
    Event,
    MessageCreated,
    MessageUpdated,
    RunChanged,
    RunCompleted,
)
from engine.records.ids import is_child_session
from engine.records.message import FinishReason, Message, Role
from engine.records.run import RunRecord, RunState

Steps = frozenset[tuple[RunState, RunState]]

# How a run may go from one event of it to the next. An active one that was steered may wait again (R12), and one that
# was recovered may be queued for its next attempt (R25).
STEPS: Steps = frozenset(
    (before, after)
    for before, afters in {
        RunState.ACCEPTED: set(RunState),
        RunState.QUEUED: set(RunState) - {RunState.ACCEPTED},
        RunState.ACTIVE: set(RunState) - {RunState.ACCEPTED},
    }.items()
    for after in afters
)


class Record(msgspec.Struct, frozen=True):
    """A workspace at rest: every event that is still in its log, every run and every message that is stored."""

    events: Sequence[Event]
    runs: Sequence[RunRecord]
    messages: Sequence[Message]


def check(record: Record) -> None:
    """Raise AssertionError unless everything holds."""
    check_numbers(record.events)
    events: defaultdict[str | None, list[Event]] = defaultdict(list)
    for event in record.events:
        events[event.run_id].append(event)
    messages: dict[str, Message] = {message.id: message for message in record.messages}
    by_run: defaultdict[str | None, list[Message]] = defaultdict(list)
    for message in record.messages:
        by_run[message.run_id].append(message)
    runs: dict[str, RunRecord] = {run.id: run for run in record.runs}
    for run in record.runs:
        check_story(run, events[run.id])
        check_ending(run, events[run.id], messages)
        if run.steered_into is None:
            check_turn(run, by_run[run.id])
        else:
            check_steered(run, by_run[run.id], runs)
    for run_id in events.keys() - runs.keys() - {None}:  # of sessions that were deleted
        check_deleted(run_id, events[run_id])
    check_order(begun(record.events))
    check_told(record.events, messages)


def check_numbers(events: Sequence[Event]) -> None:
    """The numbers have no gap; the oldest events may have been pruned (R27)."""
    numbers = [event.seq for event in events]
    first = numbers[0] if numbers else 1
    assert first is not None
    assert numbers == list(range(first, first + len(numbers))), f"numbers have a gap (R27): {numbers}"


def check_story(run: RunRecord, events: Sequence[Event]) -> None:
    """The run went from state to state as it may, and did not begin after its cancel was recorded (R09)."""
    changes = [event.body.run for event in events if isinstance(event.body, RunChanged)]
    for before, after in pairwise(changes):
        assert (before.state, after.state) in STEPS, f"run {run.seq} went from {before.state} to {after.state}"
        begins = after.state is RunState.ACTIVE and (before.state, before.attempt) != (after.state, after.attempt)
        is_marked = before.cancel_requested_at_us is not None
        assert not (begins and is_marked), f"run {run.seq} began after its cancel was recorded (R09)"


def check_ending(run: RunRecord, events: Sequence[Event], messages: Mapping[str, Message]) -> None:
    """The run has ended, once, with the last of its events, which tells what is stored; and as a cancel wanted it."""
    name = f"run {run.seq} ({run.id})"
    assert run.state.is_terminal, f"{name} never ended: it is {run.state} (R22)"
    terminal = [event.body for event in events if isinstance(event.body, RunCompleted)]
    assert len(terminal) == 1, f"{name} has {len(terminal)} terminal events (R18)"
    last = events[-1].body
    assert isinstance(last, RunCompleted), (
        f"{name}: its terminal event is not its last, but {type(last).__name__} (R19)"
    )
    told = (last.state, last.error, last.message_id, last.steered_into)
    assert told == (run.state, run.error, run.message_id, run.steered_into), f"{name}: the log tells {told} (R19)"
    if run.cancel_requested_at_us is not None:
        assert run.state is RunState.CANCELED, f"{name} was covered by a cancel, and ended {run.state} (R11)"
    has_failed = run.state in {RunState.FAILED, RunState.INTERRUPTED}
    assert has_failed == (run.error is not None), f"{name} ended {run.state} with the error {run.error} (R20)"
    if run.message_id is not None:
        message = messages.get(run.message_id)
        assert message is not None, f"{name}: its terminal event names a message that is not stored (R19)"
        assert message.text == last.text, f"{name}: the log tells {last.text!r}, stored is {message.text!r} (R19)"


def check_turn(run: RunRecord, messages: Sequence[Message]) -> None:
    """The stored turn is whole, and agrees with how the run ended (R09, R10, R19, R20)."""
    name = f"run {run.seq} ({run.id})"
    work = [message for message in messages if message.session_id != run.session_id]
    messages = [message for message in messages if message.session_id == run.session_id]
    check_work(run, work)
    turn = [message for message in messages if message.turn == run.seq]
    others = [message for message in messages if message.turn != run.seq]
    assert all(message.role is Role.USER for message in others), f"{name} spoke in the turn of another run"
    assert turn, f"{name}: its turn is not stored (R09)"
    assert turn[0].role is Role.USER, f"{name}: its turn does not begin with its prompt"
    assert sum(message.role is Role.USER for message in turn) == 1, f"{name}: its prompt is there more than once"
    if not run.prompt.attachments:
        assert turn[0].text == run.prompt.text, f"{name}: its turn begins with another prompt"
    assert all(message.finish is not None for message in turn), f"{name}: a message has no finish"
    last = [message for message in turn if message.role is Role.ASSISTANT][-1]
    assert run.message_id == last.id, f"{name} names {run.message_id}, and its last message is {last.id} (R19)"
    check_finish(run, last)
    calls = Counter(call.id for message in turn for call in message.tool_calls)
    results = Counter(result.tool_call_id for message in turn for result in message.tool_results)
    assert calls == results, f"{name}: a tool call has no result, or two: {calls - results}, {results - calls} (R10)"


def check_work(run: RunRecord, messages: Sequence[Message]) -> None:
    """What sub-agents did for the run is in sessions of their own, and whole (R10, R25)."""
    sessions: defaultdict[str, list[Message]] = defaultdict(list)
    for message in messages:
        sessions[message.session_id].append(message)
    for session_id, work in sessions.items():
        name = f"the sub-agent {session_id} of run {run.seq}"
        assert is_child_session(session_id), f"{name} speaks in the session of another run"
        assert [message.role for message in work[:2]] == [Role.USER, Role.ASSISTANT], f"{name} does not begin so"
        assert {message.turn for message in work} == {run.seq}, f"{name} is in another turn"
        assert all(message.finish is not None for message in work), f"{name}: a message has no finish"
        calls = Counter(call.id for message in work for call in message.tool_calls)
        results = Counter(result.tool_call_id for message in work for result in message.tool_results)
        assert calls == results, f"{name}: a tool call has no result, or two: {calls - results}, {results - calls}"


def check_finish(run: RunRecord, last: Message) -> None:
    """The last message ended as the run did."""
    assert last.finish is not None
    if run.state is RunState.CANCELED:
        assert last.finish.reason is FinishReason.CANCELED, f"run {run.seq}: {last.finish} (R10)"
    elif run.state in {RunState.FAILED, RunState.INTERRUPTED}:
        assert last.finish.reason is FinishReason.ERROR, f"run {run.seq}: {last.finish} (R20)"
    else:
        assert last.finish.reason is not FinishReason.CANCELED, f"run {run.seq}: {last.finish}"


def check_steered(run: RunRecord, messages: Sequence[Message], runs: Mapping[str, RunRecord]) -> None:
    """The words of a run that was steered stand in the turn of the run that took it in, and nowhere else (R15)."""
    name = f"run {run.seq} ({run.id}), steered into {run.steered_into}"
    assert messages, f"{name}: its words are not stored"
    assert all(message.role is Role.USER for message in messages), f"{name} has a turn of its own"
    host = runs.get(run.steered_into or "")
    assert host is not None, f"{name}: there is no such run"
    assert host.session_id == run.session_id, f"{name}: that is in another session"
    assert host.seq in {message.turn for message in messages}, f"{name}: its words are not in that turn"


def check_deleted(run_id: str | None, events: Sequence[Event]) -> None:
    """A run whose session is deleted had its one ending before."""
    kinds = [type(event.body) for event in events]
    assert kinds.count(RunCompleted) == 1, f"run {run_id} is deleted, and has {kinds.count(RunCompleted)} endings (R18)"
    assert kinds[-1] is RunCompleted, f"run {run_id} is deleted, and its last event is {kinds[-1].__name__} (R19)"


def begun(events: Iterable[Event]) -> Iterator[tuple[str, int]]:
    """The session and the number of each run that began a turn of its own, in that order."""
    for event in events:
        if isinstance(event.body, RunChanged) and event.body.run.state is RunState.ACTIVE:
            run = event.body.run
            if run.steered_into is None:
                yield run.session_id, run.seq


def check_order(begun: Iterable[tuple[str, int]]) -> None:
    """The runs of a session began in accept order (R14)."""
    sessions: defaultdict[str, dict[int, None]] = defaultdict(dict)
    for session_id, number in begun:
        sessions[session_id].setdefault(number)
    for session_id, numbers in sessions.items():
        assert list(numbers) == sorted(numbers), f"session {session_id} ran out of order: {list(numbers)} (R14)"


def check_told(events: Iterable[Event], messages: Mapping[str, Message]) -> None:
    """What the log told last of a message is what is stored."""
    told: dict[str, Message] = {}
    for event in events:
        if isinstance(event.body, MessageCreated):
            assert event.body.message.id not in told, "a message was created twice"
        if isinstance(event.body, MessageCreated | MessageUpdated):
            told[event.body.message.id] = event.body.message
    for message in messages.values():
        last = told.get(message.id)
        assert last is not None, f"the log does not tell of message {message.id}"
        assert last.parts == message.parts, f"message {message.id} is {message.parts}, and the log tells {last.parts}"

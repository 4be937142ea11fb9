"""Work: what the log tells of one sub-agent, and what its agent did."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

import msgspec

from engine.records.event import MessageCreated, MessageUpdated, SessionCreated, SessionDeleted
from engine.records.ids import CHILD_MARK, is_child_session
from engine.records.message import FinishReason, Message, Role, ToolResult
from tests.explorer.ledger import Answering, Ledger


class Told(msgspec.Struct):
    """One message, as it was told last. `finishes` are the reasons of its ends, if there are several; the first became
    durable at the moment `finished`."""

    message: Message
    finished: int | None = None
    finishes: list[FinishReason] = []


class Work(msgspec.Struct):
    """One sub-agent. Moments are those of the ledger."""

    id: str
    parent_id: str
    run_id: str  # that it works for
    messages: dict[str, Told] = {}
    results: dict[str, int] = {}  # when each of its calls got its result
    result: ToolResult | None = None  # of the call that asked for it
    told_result: int | None = None
    last_told: int = 0
    deleted: int | None = None
    parent_deleted: int | None = None
    answerings: list[Answering] = []

    def __str__(self) -> str:
        return f"the sub-agent of call {self.id.partition(CHILD_MARK)[2]}"

    @property
    def prompt(self) -> str:
        """What it was asked."""
        return next((told.message.text for told in self.messages.values() if told.message.role is Role.USER), "")

    @property
    def last(self) -> Told | None:
        """Its last answer."""
        return next((one for one in reversed(self.messages.values()) if one.message.role is Role.ASSISTANT), None)

    @property
    def how(self) -> str | None:
        """How its agent came to an end, if it did."""
        return self.answerings[-1].how if self.answerings else None

    def open_at(self, moment: float) -> Iterator[str]:
        """What was not closed at this moment: messages, calls, and the call that asked for it."""
        for message_id, told in self.messages.items():
            if told.finished is None or told.finished > moment:
                yield f"message {message_id}"
            for call in told.message.tool_calls:
                if self.results.get(call.id, moment + 1) > moment:
                    yield f"call {call.id}"
        if self.told_result is None or self.told_result > moment:
            yield "its own call"

    def note(self, message: Message, moment: int) -> None:
        """The log tells of a message."""
        told = self.messages.setdefault(message.id, Told(message, finishes=[]))
        told.message, self.last_told = message, moment
        if message.finish is not None:
            if told.finished is None:
                told.finished = moment
            if message.finish.reason not in told.finishes:
                told.finishes.append(message.finish.reason)
        for result in message.tool_results:
            self.results.setdefault(result.tool_call_id, moment)


def works_of(ledger: Ledger) -> dict[str, Work]:
    """What the log tells of each sub-agent, by its session."""
    works: dict[str, Work] = {}
    by_parent: defaultdict[str, dict[str, Work]] = defaultdict(dict)
    runs: dict[str, str] = {}  # of messages
    for entry in ledger.committed:
        body, moment = entry.event.body, entry.moment
        if isinstance(body, MessageCreated | MessageUpdated):
            runs[body.message.id] = body.message.run_id or ""
            if body.message.session_id in works:
                works[body.message.session_id].note(body.message, moment)
            else:
                _note_results(body.message, by_parent[body.message.session_id], moment)
        elif isinstance(body, SessionCreated) and is_child_session(body.session.id):
            message_id, _, call_id = body.session.id.partition(CHILD_MARK)
            work = Work(
                body.session.id, body.session.parent_id or "", runs.get(message_id, ""),
                messages={}, results={}, answerings=[],
            )  # fmt: skip
            works[work.id] = by_parent[work.parent_id][call_id] = work
        elif isinstance(body, SessionDeleted):
            for work in works.values():
                work.deleted = moment if work.id == body.session.id else work.deleted
                work.parent_deleted = moment if work.parent_id == body.session.id else work.parent_deleted
    for answering in ledger.answering:
        if answering.session_id in works:
            works[answering.session_id].answerings.append(answering)
    return works


def _note_results(message: Message, works: Mapping[str, Work], moment: int) -> None:
    for result in message.tool_results:
        work = works.get(result.tool_call_id)
        if work is not None and work.told_result is None:
            work.result, work.told_result = result, moment

"""LeftTurn: the turn of a run whose server died, closed: nothing in it stays open (R25)."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from engine.records.change import CreateMessage, PutMessage
from engine.records.ids import SessionId
from engine.records.message import FinishReason, Message, Role
from engine.records.run import RunError, RunRecord
from engine.runs.message_writer import end_message
from engine.runs.outcome import Outcome, interrupted, why_no_result
from engine.runs.turn_messages import tool_message, unanswered_calls
from engine.tools.protocol import ToolOutcome

INTERRUPTED = RunError(
    "interrupted",
    "Interrupted",
    "The server stopped while this run was active. What it had said is kept; send it again.",
)
RETRIED = RunError("interrupted", "Interrupted", "The server stopped here; the run begins again.")


class LeftTurn(msgspec.Struct, frozen=True):
    """What stands in the turn once the writes are committed; `last` is its last assistant message. The writes close its
    sub-agents too, whose messages are not among those of the turn."""

    messages: tuple[Message, ...]
    last: Message | None
    writes: tuple[CreateMessage | PutMessage, ...]

    def shown_again(self) -> tuple[Message, ...]:
        """What the next attempt of the run sees of this one: what was asked, and the steps that called tools, since
        those may have done something. A step that only spoke when it was broken off is taken anew, and not seen."""
        return tuple(message for message in self.messages if not _is_half_said(message))


def close_turn(run: RunRecord, messages: Sequence[Message], outcome: Outcome, *, at_us: int) -> LeftTurn:
    """Close what the run has left in a turn of its own: end its messages, and give its open calls their results. What a
    sub-agent has left is closed the same way, but for what it had ended itself."""
    sessions: defaultdict[SessionId, list[Message]] = defaultdict(list)
    for message in messages:
        if message.turn == run.seq:
            sessions[message.session_id].append(message)
    own = sessions.pop(run.session_id, [])
    last = next((message for message in reversed(own) if message.role is Role.ASSISTANT), None)
    writes: list[CreateMessage | PutMessage] = []
    for session_id, left in sessions.items():
        worker = msgspec.structs.replace(run, session_id=session_id)
        writes += _close(worker, left, outcome, at_us=at_us)
    # The last one was ended if a crash came between two attempts.
    writes += _close(run, own, outcome, also=last, at_us=at_us)
    closed = next((message for message in own if last is not None and message.id == last.id), None)
    return LeftTurn(tuple(own), closed, tuple(writes))


def _close(
    run: RunRecord, messages: list[Message], outcome: Outcome, *, also: Message | None = None, at_us: int
) -> Iterator[CreateMessage | PutMessage]:
    """End, in this list too, what is open in one session, and the message that is to be ended again."""
    finish = outcome.finish
    for index, message in enumerate(messages):
        # An earlier one is open if the commit that ended it failed.
        if message is also or (message.role is Role.ASSISTANT and message.finish is None):
            ended = end_message(message, finish.reason, title=finish.title, details=finish.details, at_us=at_us)
            messages[index] = ended
            yield PutMessage(ended)
    result = ToolOutcome(content=why_no_result(outcome), is_error=True)
    for call in unanswered_calls(messages):
        messages.append(tool_message(run, call, result, at_us=at_us))
        yield CreateMessage(messages[-1])


def interruption(run: RunRecord, max_attempts: int) -> Outcome:
    """How a run ends that is not tried again."""
    if run.attempt == 1 or run.attempt < max_attempts:
        return interrupted(INTERRUPTED)
    details = f"The server stopped while this run was active, in its attempt {run.attempt} of {max_attempts}."
    return interrupted(RunError(INTERRUPTED.type, INTERRUPTED.title, f"{details} What it had said is kept."))


def _is_half_said(message: Message) -> bool:
    finish = message.finish
    is_broken_off = finish is not None and finish.reason is FinishReason.ERROR
    return message.role is Role.ASSISTANT and is_broken_off and not message.tool_calls

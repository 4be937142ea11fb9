"""What closes a turn, and the sub-agents in it: nothing of it stays open, whatever was stored of it before (R10)."""

from engine.records.change import PutMessage, UpdateSession
from engine.records.message import Message
from engine.runs.outcome import Outcome, why_no_result
from engine.runs.turn import EndingWrites, RunTurn
from engine.runs.turn_messages import tool_message
from engine.tools.protocol import ToolOutcome


def closing_writes(turn: RunTurn, outcome: Outcome, last: Message, *, at_us: int) -> EndingWrites:
    """What is not known to be stored of the turn, its last message, and the results of its open calls. Sub-agents come
    first: one that is still at work ends as the turn does, one that had ended as it did."""
    children: list[EndingWrites] = []
    for child, ended_with in turn.children.items():
        if ended_with is None and not child.was_refused:
            ended_with = closing_writes(child, outcome, last_message(child, outcome), at_us=at_us)
        children.append(ended_with or ())
    mended = tuple(PutMessage(message) for message in turn.unconfirmed())
    result = ToolOutcome(content=why_no_result(outcome), is_error=True)
    results = tuple(PutMessage(tool_message(turn.run, call, result, at_us=at_us)) for call in turn.open_calls())
    return (*(write for writes in children for write in writes), *mended, PutMessage(last), *results)


def last_message(turn: RunTurn, outcome: Outcome) -> Message:
    """The turn's current message as it ends."""
    finish = outcome.finish
    return turn.ended(finish.reason, title=finish.title, details=finish.details)


def usage_writes(turn: RunTurn, at_us: int) -> tuple[UpdateSession, ...]:
    """What sessions have still to be told of the usage of the turn and of the sub-agents at work in it, once."""
    own = turn.usage_writes(at_us)
    return (*(write for child in turn.children for write in usage_writes(child, at_us)), *own)

"""SubAgents: an agent that answers another one, in a child session, as a part of its run.

A sub-agent is no run: nobody accepted it, nobody can cancel it alone, and it has no terminal event. Its messages belong
to the run that it works for, and stand in a session of their own. That run's ending closes what is open of them in the
same commit (R10, R18), and so does the recovery of a run whose server died (R25).
"""

from collections.abc import Collection

import msgspec
import trio

from engine.agents.protocol import Agent
from engine.errors import Conflict
from engine.events.log import Pending
from engine.records.change import Change, CreateMessage, CreateSession, Write
from engine.records.ids import child_session_id
from engine.records.message import FinishReason, ToolCall, storable
from engine.records.run import Prompt, Purpose
from engine.records.session import Session
from engine.runs.accepted import AcceptedRun
from engine.runs.answering import Answering
from engine.runs.message_writer import MessageOutlet
from engine.runs.outcome import Outcome, completed, describe, failed
from engine.runs.title import first_words
from engine.runs.turn import RunTurn
from engine.runs.turn_closing import closing_writes, last_message
from engine.runs.turn_messages import assistant_message, user_message
from engine.tools.permissions import Permissions
from engine.tools.protocol import ToolOutcome

NO_WORDS = "The sub-agent ended without a word."
FAILED = "The sub-agent failed: {title}. {details}"
TAKEN = "There is a sub-agent for a call with the id {call_id!r} already; call the tool again."


class NoSteering:
    """Nobody steers a sub-agent."""

    def take(self) -> tuple[AcceptedRun, ...]:
        """Nothing."""
        return ()

    def give_back(self, runs: tuple[AcceptedRun, ...]) -> None:
        """Nothing was taken."""


class SubAgents:
    """Runs the sub-agents of one workspace: the agent itself, in a turn of its own with fewer tools."""

    def __init__(self, agent: Agent, permissions: Permissions, outlet: MessageOutlet, *, flush_s: float) -> None:
        self._agent = agent
        self._permissions = permissions
        self._outlet = outlet
        self._flush_s = flush_s

    async def delegate(self, host: RunTurn, call: ToolCall, prompt: str, *, tools: Collection[str]) -> ToolOutcome:
        """Implements `Delegating`. Canceled, it leaves the sub-agent to the ending of the run, which closes it."""
        host.check_open()
        child = self._begin(host, call, storable(prompt), tools)
        try:
            await child.start.wait()
        except Conflict:  # the session of another call with this id: its words are not for this one to end
            child.end()
            del host.children[child]
            await trio.lowlevel.checkpoint()
            return ToolOutcome(content=TAKEN.format(call_id=call.id), is_error=True)
        child.begin()
        answering = Answering(self._agent, child)
        await answering.run()
        if answering.problem is not None:
            outcome = failed(describe(answering.problem))
        else:
            outcome = completed(child.planned_finish)
        await self._end(host, child, outcome)
        return result_of(child, outcome)

    def _begin(self, host: RunTurn, call: ToolCall, prompt: str, tools: Collection[str]) -> RunTurn:
        """Send the session and its first messages on their way, and give the sub-agent its turn."""
        at_us = self._outlet.now_us()
        session_id = child_session_id(host.message.id, call.id)
        asked = Prompt(session_id=session_id, text=prompt, model=host.prompt.model, purpose=Purpose.DELEGATED)
        run = msgspec.structs.replace(host.run, session_id=session_id, prompt=asked)
        user = user_message(run, turn=run.seq, at_us=at_us)
        assistant = assistant_message(run, at_us=at_us)
        session = Session(
            id=session_id, workspace_id=run.workspace_id, parent_id=host.session_id, title=first_words(asked),
            created_at_us=at_us, updated_at_us=at_us,
        )  # fmt: skip
        start = self._submit(CreateSession(session), *host.unstored(), CreateMessage(user), CreateMessage(assistant))
        child = RunTurn(
            run, start=start, written=(user,), assistant=assistant, workspace=host.workspace, model=host.model,
            outlet=self._outlet, flush_s=self._flush_s, permissions=self._permissions, steering=NoSteering(),
            tools={name: tool for name, tool in host.tools().items() if name in tools},
            delegate=self.delegate, host=host,
        )  # fmt: skip
        host.children[child] = None
        return child

    async def _end(self, host: RunTurn, child: RunTurn, outcome: Outcome) -> None:
        """Store how it ended. Until that is known to be stored, the ending of the run makes sure of it."""
        child.check_open()
        at_us = self._outlet.now_us()
        used = child.usage_writes(at_us)
        closing = closing_writes(child, outcome, last_message(child, outcome), at_us=at_us)
        child.end()
        host.children[child] = closing
        await self._submit(*closing, *used).wait()
        del host.children[child]

    def _submit(self, *writes: Write) -> Pending:
        outlet = self._outlet
        return outlet.log.submit(Change(outlet.workspace_id, outlet.now_us(), writes))


def result_of(child: RunTurn, outcome: Outcome) -> ToolOutcome:
    """What the agent that asked is told. A person's no to the sub-agent is a no to the whole turn (R31)."""
    if child.stopped_by is not None:
        return child.stopped_by
    said = child.message.text.strip()
    if outcome.error is not None:
        told = FAILED.format(title=outcome.error.title, details=outcome.error.details).rstrip()
        return ToolOutcome(content=f"{told}\n\nUntil then it said:\n{said}" if said else told, is_error=True)
    finish = outcome.finish
    note = f"[{finish.title or finish.reason}: {finish.details}]" if finish.reason is not FinishReason.END_TURN else ""
    return ToolOutcome(content="\n\n".join(part for part in (said, note) if part) or NO_WORDS)

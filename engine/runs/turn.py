"""RunTurn: the Turn that a run hands to its agent."""

import math
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import msgspec
import trio

from engine.errors import PermissionDenied, StoreError
from engine.events.log import Pending
from engine.records.change import Change, CreateMessage, PutMessage, StartRun, UpdateMessage, UpdateSession, Write
from engine.records.ids import MessageId, RunId, SessionId, new_request_id
from engine.records.message import Finish, FinishReason, Message, ToolCall, since_summary, storable
from engine.records.permission import PermissionRequest
from engine.records.run import Prompt, RunRecord, Usage
from engine.runs.accepted import AcceptedRun
from engine.runs.message_writer import MessageOutlet, MessageWriter
from engine.runs.turn_messages import assistant_message, tool_message, unanswered_calls, user_message
from engine.store.protocol import Committed
from engine.tools.calling import call_tool
from engine.tools.permissions import Permissions
from engine.tools.protocol import Tool, ToolContext, ToolOutcome

EndingWrites = tuple[CreateMessage | PutMessage | UpdateSession, ...]
TOKENS_MAX = 2**53  # of one step: the sum of many still fits into a column of the store


class Steering(Protocol):
    """Where prompts for this turn come from."""

    def take(self) -> tuple[AcceptedRun, ...]:
        """Take the runs that want to join the turn now."""
        ...

    def give_back(self, runs: tuple[AcceptedRun, ...]) -> None:
        """They could not be taken in: they wait again."""
        ...


class Delegating(Protocol):
    """Who runs sub-agents for turns."""

    async def __call__(self, host: "RunTurn", call: ToolCall, prompt: str, *, tools: Collection[str]) -> ToolOutcome:
        """What came of it. Raises StoreError, and RuntimeError once the turn is over."""
        ...


class RunTurn:
    """One turn of one run, or of a sub-agent in it; `engine.agents.protocol.Turn` is its contract.

    The turn of a sub-agent has a `host`, which pays for it. `children` are those of its sub-agents that are not known
    to have ended in the store. After `end` every method raises RuntimeError.
    """

    def __init__(
        self,
        run: RunRecord,
        *,
        start: Pending,
        written: Sequence[Message],
        assistant: Message,
        workspace: Path,
        model: str | None,
        outlet: MessageOutlet,
        flush_s: float,
        tools: Mapping[str, Tool],
        permissions: Permissions,
        steering: Steering,
        delegate: Delegating,
        host: "RunTurn | None" = None,
    ) -> None:
        self.run = run
        self.start = start
        self.workspace = workspace
        self.model = model
        self.usage = Usage()
        self.host = host
        self.children: dict[RunTurn, EndingWrites | None] = {}  # with what ends them, once they have ended
        self.stopped_by: ToolOutcome | None = None  # a result that ended the turn
        self._outlet = outlet
        self._flush_s = flush_s
        self._tools = tools
        self._permissions = permissions
        self._steering = steering
        self._delegate = delegate
        self._written: list[Message] = list(written)
        self._begun_at = len(self._written)  # where the current message belongs among them
        self._writer = MessageWriter(assistant, outlet, flush_s=flush_s)
        self._planned = Finish(FinishReason.END_TURN)
        self._step_usage = Usage()
        self._is_over = False
        # Written, but not known to be stored. An ending mends what is missing of them: a commit may fail behind a wait
        # that was canceled.
        self._unconfirmed: dict[MessageId, Message] = {message.id: message for message in (*written, assistant)}
        outlet.enroll(self._writer, start)

    def begin(self) -> None:
        """The turn's first messages are stored."""
        self._unconfirmed.clear()

    @property
    def was_refused(self) -> bool:
        """Whether it is known that the turn was never begun in the store."""
        outcome = self.start.outcome
        return isinstance(outcome, Exception) or (outcome is not None and not outcome.applied[0])

    def recall(self, earlier: Sequence[Message]) -> None:
        """Put earlier turns in front. What this run said in a turn that was canceled over it is left out: it says it
        again in its own."""
        kept = [message for message in earlier if message.run_id != self.run.id]
        self._written[:0] = kept
        self._begun_at += len(kept)

    @property
    def run_id(self) -> RunId:
        """The run this turn belongs to."""
        return self.run.id

    @property
    def session_id(self) -> SessionId:
        """Its session."""
        return self.run.session_id

    @property
    def prompt(self) -> Prompt:
        """What was asked."""
        return self.run.prompt

    @property
    def history(self) -> tuple[Message, ...]:
        """Earlier turns, then this one up to the current message; from a summary on, if there is one."""
        return tuple(since_summary(self._written))

    @property
    def message(self) -> Message:
        """The current assistant message as it stands."""
        return self._writer.message

    @property
    def planned_finish(self) -> Finish:
        """How the current message ends if nothing else ends it first."""
        return self._planned

    def say(self, text: str) -> None:
        """Append words to the current message."""
        self._writer.say(text)

    def think(self, text: str, signature: str = "") -> None:
        """Append thinking to the current message."""
        self._writer.think(text, signature)

    def begin_tool_call(self, call_id: str, name: str) -> None:
        """A tool call begins in the current message."""
        self._writer.begin_tool_call(call_id, name)

    def append_tool_input(self, call_id: str, text: str) -> None:
        """More of its JSON input."""
        self._writer.append_tool_input(call_id, text)

    def end_tool_call(self, call_id: str) -> ToolCall:
        """Its input is complete."""
        return self._writer.end_tool_call(call_id)

    def reset(self) -> None:
        """Take back everything said in the current message (R20)."""
        self._writer.reset()

    def speak_as(self, model: str, provider: str) -> None:
        """Name the model that writes the current message, and those that follow."""
        self._writer.speak_as(model, provider)

    def use(self, usage: Usage) -> None:
        """Account for a step."""
        self.check_open()
        if not math.isfinite(usage.cost):
            raise ValueError(f"a cost must be a finite number, not {usage.cost}")
        usage = msgspec.convert(msgspec.to_builtins(usage), Usage)
        if max(usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens) > TOKENS_MAX:
            raise ValueError(f"no step takes that many tokens: {usage}")
        self._step_usage = msgspec.structs.replace(usage, cost=self._step_usage.cost + usage.cost)
        payer: RunTurn | None = self
        while payer is not None:
            payer.usage, payer = payer.usage + usage, payer.host

    def finish(self, reason: FinishReason, *, title: str = "", details: str = "") -> None:
        """How the current message ends, if nothing else ends it first."""
        self.check_open()
        self._planned = Finish(FinishReason(reason), title=storable(title), details=storable(details))

    def tools(self) -> Mapping[str, Tool]:
        """What `call_tool` knows, by name."""
        return self._tools

    async def call_tool(self, call: ToolCall) -> ToolOutcome:
        """Run a tool and store its result."""
        self.check_open()
        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(sorted(self._tools)) or "none"
            outcome = ToolOutcome(content=f"there is no tool {call.name!r}; the tools are: {known}", is_error=True)
        else:
            context = ToolContext(
                workspace=self.workspace, session_id=self.session_id, run_id=self.run_id,
                message_id=self._writer.id, call_id=call.id, permit=partial(self._permit, call),
                delegate=partial(self._delegate, self, call),
            )  # fmt: skip
            outcome = await call_tool(tool, call.input, context)
        if outcome.ends_turn:
            self.stopped_by = outcome
        await self._store_result(call, outcome)
        return outcome

    async def _permit(
        self,
        call: ToolCall,
        *,
        action: str,
        path: Path,
        description: str = "",
        params: Mapping[str, object] | None = None,
    ) -> None:
        """Implements `Permit` for one call. What was granted for a session holds for its sub-agents."""
        request = PermissionRequest(
            id=new_request_id(), session_id=(self.host or self).session_id, run_id=self.run_id, tool_call_id=call.id,
            tool_name=call.name, action=action, path=str(path), description=description, params=dict(params or {}),
        )  # fmt: skip
        decision = await self._permissions.ask(request)
        if decision is None or not decision.is_granted:
            raise PermissionDenied(by_person=decision is not None)

    async def reject_tool_call(self, call: ToolCall, content: str) -> None:
        """Store an error as the result of a call that is not run."""
        await self._store_result(call, ToolOutcome(content=content, is_error=True))

    async def next_step(self, *, is_summary: bool = False) -> None:
        """End the current message and begin another."""
        self.check_open()
        at_us = self._outlet.now_us()
        planned = self._planned.reason
        if planned is FinishReason.END_TURN and not self._writer.message.is_summary:
            planned = FinishReason.TOOL_USE
        ended = self._end_message(planned)
        begun = assistant_message(
            self.run, at_us=at_us, model=ended.model, provider=ended.provider, is_summary=is_summary
        )
        # The new writer is in place before the wait: a cancel in between finds it, and its settle is ordered behind.
        self._writer = MessageWriter(begun, self._outlet, flush_s=self._flush_s)
        self._planned = Finish(FinishReason.END_TURN)
        # Results and steered prompts were written after this message began: it goes where it began.
        self._written.insert(self._begun_at, ended)
        self._begun_at = len(self._written)
        writes: tuple[Write, ...] = (UpdateMessage(ended), *self.usage_writes(at_us), CreateMessage(begun))
        await self._commit(writes, (ended, begun), begins=True)

    async def steered(self) -> tuple[Message, ...]:
        """Take in the prompts that were steered into this turn (R15)."""
        self.check_open()
        taken = self._steering.take()
        if not taken:
            await trio.lowlevel.checkpoint()
            return ()
        at_us = self._outlet.now_us()
        messages = [user_message(run.record, turn=self.run.seq, at_us=at_us) for run in taken]
        starts = tuple(
            StartRun(run_id=run.record.id, at_us=at_us, steered_into=self.run.id, writes=(CreateMessage(message),))
            for run, message in zip(taken, messages, strict=True)
        )
        try:
            committed = await self._commit(starts, messages)
        except StoreError:
            self._steering.give_back(taken)
            for run, message in zip(taken, messages, strict=True):
                if run.steered_into is None:  # it waits again; one that was canceled meanwhile ends with this turn
                    del self._unconfirmed[message.id]
            raise
        joined = [message for message, applied in zip(messages, committed.applied, strict=True) if applied]
        self._written.extend(joined)
        return tuple(joined)

    def unconfirmed(self) -> tuple[Message, ...]:
        """The messages that an ending has to make sure of, in order; the current one is not among them."""
        return tuple(message for message in self._unconfirmed.values() if message.id != self._writer.id)

    def unstored(self) -> tuple[PutMessage, ...]:
        """The current message, if its last change of structure is not known to be stored. What builds on that takes it
        along: neither the result of a call is stored without the call, nor the sub-agent that it asked for."""
        return (PutMessage(self._writer.message),) if self._writer.is_unconfirmed else ()

    def open_calls(self) -> tuple[ToolCall, ...]:
        """Calls of this turn that have no result."""
        mine = [message for message in self._written if message.run_id == self.run.id]
        return unanswered_calls([*mine, self._writer.message])

    def ended(self, reason: FinishReason, *, title: str = "", details: str = "") -> Message:
        """The current message as it would end for this reason."""
        return self._writer.ended(reason, title=title, details=details)

    def usage_writes(self, at_us: int) -> tuple[UpdateSession, ...]:
        """What the session has to be told of the latest step's usage, once."""
        step, self._step_usage = self._step_usage, Usage()
        if step == Usage():
            return ()
        own = UpdateSession(
            session_id=self.session_id, at_us=at_us, prompt_tokens=step.input_tokens + step.cache_read_tokens,
            completion_tokens=step.output_tokens, add_cost=step.cost,
        )  # fmt: skip
        if self.host is None or not step.cost:
            return (own,)
        return own, UpdateSession(session_id=self.host.session_id, at_us=at_us, add_cost=step.cost)

    def end(self) -> None:
        """The turn is over, and so are those in it; what the settling run writes is the last of it."""
        self._is_over = True
        for child in self.children:
            child.end()
        self._writer.close(FinishReason.UNKNOWN)

    def check_open(self) -> None:
        """Raise RuntimeError once the turn is over."""
        if self._is_over:
            raise RuntimeError("the turn is over")

    def _end_message(self, reason: FinishReason) -> Message:
        return self._writer.close(reason, title=self._planned.title, details=self._planned.details)

    async def _store_result(self, call: ToolCall, outcome: ToolOutcome) -> None:
        self.check_open()
        message = tool_message(self.run, call, outcome, at_us=self._outlet.now_us())
        self._written.append(message)
        await self._commit((CreateMessage(message),), (message,))

    async def _commit(
        self, writes: tuple[Write, ...], messages: Sequence[Message], *, begins: bool = False
    ) -> Committed:
        """Commit writes of these messages; whatever becomes of the wait, the ending knows what may be missing. The last
        of them may be the beginning of the current message."""
        mended = self.unstored()
        self._unconfirmed.update({message.id: message for message in messages})
        change = Change(self._outlet.workspace_id, self._outlet.now_us(), (*mended, *writes))
        pending = self._outlet.log.submit(change)
        if begins:
            self._outlet.enroll(self._writer, pending)
        committed = await pending.wait()
        for message in messages:
            self._unconfirmed.pop(message.id, None)
        return msgspec.structs.replace(committed, applied=committed.applied[len(mended) :])

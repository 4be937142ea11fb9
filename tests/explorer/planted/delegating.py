"""Bugs in what becomes of sub-agents."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress

import trio

from engine.errors import StoreError
from engine.records.change import PutMessage
from engine.records.event import AgentFinished
from engine.records.ids import is_child_session
from engine.records.message import FinishReason, Message, ToolCall
from engine.records.run import RunRecord
from engine.runs import left_turn, recovery, settle, sub_agents, turn_closing
from engine.runs.left_turn import LeftTurn
from engine.runs.outcome import Outcome
from engine.runs.run import Runner, RunSeams
from engine.runs.sub_agents import SubAgents
from engine.runs.turn import EndingWrites, RunTurn
from engine.store import sqlite_session_writes
from engine.store.sqlite_transaction import Writing
from engine.tools import agent
from engine.tools.protocol import ToolOutcome
from tests.explorer.planted.registry import bug, put


@bug(first=45)
def sub_agents_left_open() -> Iterator[None]:
    """An ending closes its own turn, and not those of the sub-agents in it (R10)."""
    usual = turn_closing.closing_writes

    def closing_writes(turn: RunTurn, outcome: Outcome, last: Message, *, at_us: int) -> EndingWrites:
        children, turn.children = turn.children, {}
        try:
            return usual(turn, outcome, last, at_us=at_us)
        finally:
            turn.children = children

    with put(settle, "closing_writes", closing_writes):
        yield


@bug(first=95)
def calls_of_sub_agents_left_open() -> Iterator[None]:
    """The calls of a sub-agent get no result when its run is canceled (R10)."""
    usual = RunTurn.open_calls
    with put(RunTurn, "open_calls", lambda turn: () if turn.host is not None else usual(turn)):
        yield


@bug(first=45)
def sub_agents_outlive_their_run() -> Iterator[None]:
    """A sub-agent is a task of the workspace, which the cancel of its run does not reach (R10, R13)."""
    usual_init, usual = Runner.__init__, SubAgents.delegate
    seams: list[RunSeams] = []

    def init(runner: Runner, given: RunSeams) -> None:
        usual_init(runner, given)
        seams.append(given)

    async def delegate(
        made: SubAgents, host: RunTurn, call: ToolCall, prompt: str, *, tools: Collection[str]
    ) -> ToolOutcome:
        came: list[ToolOutcome | StoreError] = []
        done = trio.Event()

        async def work() -> None:
            with suppress(RuntimeError):  # the turn is over
                try:
                    came.append(await usual(made, host, call, prompt, tools=tools))
                except StoreError as error:
                    came.append(error)
            done.set()

        seams[-1].start(work)
        await done.wait()
        if isinstance(came[0], StoreError):
            raise came[0]
        return came[0]

    with put(Runner, "__init__", init), put(SubAgents, "delegate", delegate):
        yield


@bug(first=72)
def sub_agents_end_again() -> Iterator[None]:
    """A sub-agent that had ended by itself ends once more, as its run does (R10)."""
    usual = SubAgents._end

    async def end(made: SubAgents, host: RunTurn, child: RunTurn, outcome: Outcome) -> None:
        await usual(made, host, child, outcome)
        host.children[child] = None

    with put(SubAgents, "_end", end):
        yield


@bug(first=372)
def sub_agents_not_recovered() -> Iterator[None]:
    """Recovery closes the turn of a run, and not what its sub-agents had left (R25)."""
    usual = left_turn.close_turn

    def close_turn(run: RunRecord, messages: Sequence[Message], outcome: Outcome, *, at_us: int) -> LeftTurn:
        return usual(run, [one for one in messages if one.session_id == run.session_id], outcome, at_us=at_us)

    with put(settle, "close_turn", close_turn), put(recovery, "close_turn", close_turn):
        yield


@bug(first=72)
def sub_agents_fail_their_run() -> Iterator[None]:
    """What a sub-agent fails with is raised in its run, and is no result of a call (R20)."""

    def describe(problem: BaseException) -> None:
        raise problem

    with put(sub_agents, "describe", describe):
        yield


@bug(first=72)
def words_of_sub_agents_lost() -> Iterator[None]:
    """The result of a call does not hold what the sub-agent said (R10)."""
    with put(sub_agents, "result_of", lambda *_: ToolOutcome(content=sub_agents.NO_WORDS)):
        yield


@bug(first=59)
def sub_agents_do_anything() -> Iterator[None]:
    """A sub-agent has all the tools of its run (R31)."""
    with put(agent, "READ_ONLY", frozenset({"wait", "change", "job", "question", "view"})):
        yield


@bug(first=405)
def cost_of_sub_agents_dropped() -> Iterator[None]:
    """What a sub-agent takes is counted in its own session, and not in that of its run."""
    usual = RunTurn.usage_writes
    with put(RunTurn, "usage_writes", lambda turn, at_us: usual(turn, at_us)[:1]):
        yield


@bug(first=72)
def sub_agents_told_of_as_runs() -> Iterator[None]:
    """Who is to be notified of the ends of runs is notified of a sub-agent's (R18)."""
    usual = sqlite_session_writes.put_message

    def put_message(writing: Writing, write: PutMessage) -> bool:
        message, finish = write.message, write.message.finish
        is_ended = finish is not None and finish.reason is FinishReason.END_TURN
        if is_ended and message.run_id is not None and is_child_session(message.session_id):
            writing.emit(AgentFinished(message.session_id, message.run_id), message.session_id)
        return usual(writing, write)

    with put(sqlite_session_writes, "put_message", put_message):
        yield

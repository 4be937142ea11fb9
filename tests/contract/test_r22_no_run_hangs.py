"""R22: whatever an agent, a model, a tool or a reader does or fails to do, every run ends, and the others go on."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from engine.records.event import RunChanged
from engine.records.message import FinishReason, ToolCall
from engine.records.run import RunState, Usage
from engine.settings import EngineSettings
from engine.tools.protocol import ToolOutcome
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.tools import GateTool

Respond = Callable[[Any], Awaitable[None]]


class Odd(BaseException):
    """Derives from BaseException, as asyncio's CancelledError does."""


async def says_nothing(turn: Any) -> None:
    """Return at once."""


async def raises_a_group(turn: Any) -> None:
    raise BaseExceptionGroup("several", [ValueError("one"), ExceptionGroup("more", [KeyError("two")])])


async def crashes_in_its_nursery(turn: Any) -> None:
    async def crash() -> None:
        raise ValueError("a child of the agent failed")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        nursery.start_soon(crash)


async def exits(turn: Any) -> None:
    raise SystemExit(3)


async def leaks_the_cancellation_of_asyncio(turn: Any) -> None:
    raise asyncio.CancelledError


async def raises_a_base_exception(turn: Any) -> None:
    raise Odd("what is this")


async def raises_a_mixed_group(turn: Any) -> None:
    raise BaseExceptionGroup("mixed", [ValueError("one"), Odd("two")])


async def recurses(turn: Any) -> None:
    await recurses(turn)


async def speaks_in_bytes(turn: Any) -> None:
    turn.say(b"words")


async def finishes_for_a_made_up_reason(turn: Any) -> None:
    turn.finish("done")


async def calls_a_tool_that_is_not_there(turn: Any) -> None:
    turn.begin_tool_call("c", "no such tool")
    await turn.call_tool(turn.end_tool_call("c"))


async def leaves_calls_open(turn: Any) -> None:
    turn.begin_tool_call("c", "tool")


FAILING: list[Respond] = [
    raises_a_group,
    crashes_in_its_nursery,
    exits,
    leaks_the_cancellation_of_asyncio,
    raises_a_base_exception,
    raises_a_mixed_group,
    recurses,
    speaks_in_bytes,
    finishes_for_a_made_up_reason,
]
COMPLETING: list[Respond] = [says_nothing, calls_a_tool_that_is_not_there, leaves_calls_open]


@pytest.mark.parametrize("respond", FAILING)
async def test_r22_run_fails_and_the_next_one_runs_though_its_agent(
    respond: Respond, watched: Watched, autojump_clock: object
) -> None:
    other = await watched.workspace.sessions.create("other")
    gate = Gate()

    async def answer(turn: Any) -> None:
        await (respond(turn) if turn.prompt.text == "do it" else gate.pass_through())

    watched.agent.respond_with = answer
    beside = await watched.send("a neighbor", session_id=other.id)
    await gate.reached()
    run = await watched.send("do it")
    behind = await watched.send("and then")
    ended = await watched.ended(run)
    assert ended.state is RunState.FAILED
    assert ended.error is not None
    gate.open()
    assert (await watched.ended(behind)).state is RunState.COMPLETED
    assert (await watched.ended(beside)).state is RunState.COMPLETED
    await watched.messages()


@pytest.mark.parametrize("respond", COMPLETING)
async def test_r22_run_completes_though_its_agent(respond: Respond, watched: Watched, autojump_clock: object) -> None:
    watched.agent.respond_with = respond
    assert (await watched.ended(await watched.send("hi"))).state is RunState.COMPLETED


async def swallows_cancellation(turn: Any) -> None:
    """Return as if nothing were."""
    try:
        await trio.sleep_forever()
    except trio.Cancelled:
        turn.say("I will not be stopped")


async def goes_on_after_cancellation(turn: Any) -> None:
    """Try again and again, each time in vain."""
    for _ in range(5):
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            continue


async def cleans_up_behind_a_shield(turn: Any) -> None:
    """Take one second."""
    try:
        await trio.sleep_forever()
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)


@pytest.mark.parametrize("respond", [swallows_cancellation, goes_on_after_cancellation, cleans_up_behind_a_shield])
async def test_r22_canceled_run_ends_canceled_though_its_agent(
    respond: Respond, watched: Watched, autojump_clock: object
) -> None:
    watched.agent.respond_with = respond
    run = await watched.send("hi")
    await trio.sleep(1)
    await watched.workspace.cancel_run(run.id)
    assert (await watched.ended(run, 2)).state is RunState.CANCELED


@pytest.mark.parametrize("how", ["a cancel", "its deadline"])
@pytest.mark.parametrize("where", ["agent", "tool"])
async def test_r22_run_ends_though_something_shields_itself_for_ever(
    where: str, how: str, autojump_clock: object, tmp_path: object
) -> None:
    release = Gate()

    async def shielded(*_: object) -> None:
        with trio.CancelScope(shield=True):
            await release.pass_through()

    class Stubborn(GateTool):
        async def call(self, *_: object) -> ToolOutcome:
            await shielded()
            return ToolOutcome(content="too late")

    async def respond(turn: Any) -> None:
        if turn.prompt.text == "next":
            return
        if where == "agent":
            await shielded()
        turn.begin_tool_call("c", "stubborn")
        await turn.call_tool(turn.end_tool_call("c"))

    async with open_watched(path=str(tmp_path), tools={"stubborn": Stubborn()}) as watched:
        watched.agent.respond_with = respond
        try:
            run = await watched.send("hi", timeout_s=5 if how == "its deadline" else None)
            await release.reached()
            if how == "a cancel":
                await watched.workspace.cancel_run(run.id)
            ended = await watched.ended(run, 60)
            assert ended.state is (RunState.CANCELED if how == "a cancel" else RunState.FAILED)
            assert (await watched.ended(await watched.send("next"))).state is RunState.COMPLETED
        finally:
            release.open()


async def test_r22_what_a_stopped_agent_does_when_its_turn_is_over_changes_nothing(
    autojump_clock: object, tmp_path: object
) -> None:
    raised: list[BaseException] = []
    tool = GateTool(gate=Gate(is_open=True))

    async def respond(turn: Any) -> None:
        if turn.prompt.text == "next":
            return
        with trio.CancelScope(shield=True):
            await trio.sleep(100)
            call = ToolCall("c", "wait", finished=True)
            late: tuple[Callable[[], object], ...] = (
                lambda: turn.say("late"),
                lambda: turn.think(""),
                lambda: turn.begin_tool_call("c", "t"),
                lambda: turn.use(Usage(1)),
                lambda: turn.speak_as("model", "provider"),
                lambda: turn.finish(FinishReason.END_TURN),
            )
            for speak in late:
                try:
                    speak()
                except RuntimeError as error:
                    raised.append(error)
            for wait in (turn.next_step, turn.steered, lambda: turn.call_tool(call)):
                try:
                    await wait()
                except RuntimeError as error:
                    raised.append(error)

    async with open_watched(path=str(tmp_path), agent=ScriptedAgent(respond), tools={"wait": tool}) as watched:
        run = await watched.send("hi")
        await trio.sleep(1)
        await watched.workspace.cancel_run(run.id)
        await watched.ended(run)
        await watched.ended(await watched.send("next"))
        before = len(await watched.events())
        await trio.sleep(200)
        assert (len(raised), tool.begun) == (9, 0)
        assert len(await watched.events()) == before


async def test_r22_slow_titler_and_a_crashing_one_hold_nobody_up(autojump_clock: object, tmp_path: object) -> None:
    class Titler:
        def __init__(self, title: Respond) -> None:
            self.title = title

    async def hang(prompt: object) -> None:
        await trio.sleep_forever()

    for behave in (hang, crashes_in_its_nursery, exits, says_nothing):
        async with open_watched(path=str(tmp_path), titler=Titler(behave)) as watched:  # type: ignore[arg-type]
            start = trio.current_time()
            for _ in range(2):
                assert (await watched.ended(await watched.send("hi"))).state is RunState.COMPLETED
            assert trio.current_time() == start


async def test_r22_readers_that_never_read_or_go_away_hold_nobody_up(watched: Watched, autojump_clock: object) -> None:
    async def respond(turn: Any) -> None:
        for _ in range(50):
            turn.say("word ")
            await trio.sleep(0.05)

    watched.agent.respond_with = respond
    async with watched.workspace.open_feed(after=0), watched.workspace.open_feed(after=None):
        start = trio.current_time()
        run = await watched.send("hi")
        async with watched.workspace.open_feed(after=0, run_id=run.id):
            pass
        assert (await watched.ended(run)).state is RunState.COMPLETED
        assert trio.current_time() - start == pytest.approx(2.5)


async def test_r22_every_run_of_a_crowd_ends_within_its_deadline(autojump_clock: object, tmp_path: object) -> None:
    settings = EngineSettings(data_dir=None, max_active_runs=3, default_timeout_s=10)
    async with open_watched(path=str(tmp_path), settings=settings, **coder(RecordingModel())) as watched:
        sessions = [watched.session_id, *[(await watched.workspace.sessions.create("s")).id for _ in range(4)]]
        scripts: list[list[dict[str, object]]] = [
            [{"hang": True}],
            [{"text": "ok"}],
            [{"fail": "server"}],
            [{"wait": 3}],
        ]
        runs = [
            await watched.send(script(scripts[(number + place) % 4]), session_id=session_id)
            for number in range(4)
            for place, session_id in enumerate(sessions)
        ]
        for run in runs:
            ended = await watched.ended(run, 1000)
            assert ended.started_at_us is not None
            assert ended.ended_at_us is not None
            assert ended.ended_at_us - ended.started_at_us <= 10_000_000
        begun = [e.body.run for e in await watched.events() if isinstance(e.body, RunChanged)]
        assert {run.id for run in begun} == {run.id for run in runs}

"""R20: a failure is told in words to act on; what may pass is tried again, and nothing is shown twice."""

import pytest
import trio

from engine.agents.protocol import Turn
from engine.errors import ModelError, ModelErrorKind
from engine.models.retry import RETRIES
from engine.records.event import AgentFailed, MessageUpdated
from engine.records.message import FinishReason, Role
from engine.records.run import RunError, RunRecord, RunState
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.reading import read_along
from tests.doubles.tools import GateTool

TRANSIENT: list[ModelErrorKind] = ["rate_limit", "overloaded", "server", "connection", "protocol"]
FINAL: list[ModelErrorKind] = ["authentication", "bad_request", "context_length", "not_found", "content_filter"]


async def check_told(watched: Watched, run: RunRecord, error: RunError) -> None:
    """The run, its message, its terminal event and the notice say the same."""
    ended = await watched.ended(run)
    assert (ended.state, ended.error) == (RunState.FAILED, error)
    last = [message for message in await watched.messages() if message.role is Role.ASSISTANT][-1]
    assert last.finish is not None
    assert (last.finish.reason, last.finish.title, last.finish.details) == (
        FinishReason.ERROR,
        error.title,
        error.details,
    )
    [terminal] = await watched.terminal_events(run)
    assert terminal.error == error
    notices = [event.body for event in await watched.events() if isinstance(event.body, AgentFailed)]
    assert [(notice.run_id, notice.error) for notice in notices] == [(run.id, error)]


@pytest.mark.parametrize("kind", FINAL)
async def test_r20_error_that_will_not_pass_is_told_at_once(
    kind: ModelErrorKind, autojump_clock: object, tmp_path: object
) -> None:
    model = RecordingModel()
    async with open_watched(path=str(tmp_path), **coder(model)) as watched:
        start = trio.current_time()
        run = await watched.send(script([{"text": "well"}, {"fail": kind, "title": "No", "details": "Do this."}]))
        await check_told(watched, run, RunError(kind, "No", "Do this."))
        assert trio.current_time() == start
        assert len(model.requests) == 1
        assert [message.text for message in await watched.messages()][1:] == ["well"]


@pytest.mark.parametrize("kind", TRANSIENT)
async def test_r20_error_that_may_pass_is_tried_again_with_backoff(
    kind: ModelErrorKind, autojump_clock: object, tmp_path: object
) -> None:
    model = RecordingModel()
    async with open_watched(path=str(tmp_path), **coder(model)) as watched:
        start = trio.current_time()
        run = await watched.send(script([{"text": "half "}, {"fail": kind, "times": RETRIES}, {"text": "whole"}]))
        ended = await watched.ended(run)
        assert (ended.state, ended.error) == (RunState.COMPLETED, None)
        assert trio.current_time() - start == pytest.approx(1 + 2 + 4)
        assert len(model.requests) == 1 + RETRIES
        assert [message.text for message in await watched.messages()][1:] == ["half whole"]


async def test_r20_error_that_does_not_pass_is_told_after_the_last_try(
    autojump_clock: object, tmp_path: object
) -> None:
    model = RecordingModel()
    async with open_watched(path=str(tmp_path), **coder(model)) as watched:
        run = await watched.send(script([{"fail": "overloaded", "title": "Busy", "details": "Come back later."}]))
        await check_told(watched, run, RunError("overloaded", "Busy", "Come back later."))
        assert len(model.requests) == 1 + RETRIES


async def test_r20_retry_waits_as_long_as_the_provider_asks(autojump_clock: object, tmp_path: object) -> None:
    model = RecordingModel()
    async with open_watched(path=str(tmp_path), **coder(model)) as watched:
        start = trio.current_time()
        run = await watched.send(script([{"fail": "rate_limit", "retry_after": 37, "times": 1}, {"text": "ok"}]))
        assert (await watched.ended(run)).state is RunState.COMPLETED
        assert trio.current_time() - start == pytest.approx(37)


async def test_r20_provider_that_asks_for_too_long_a_wait_is_not_waited_for(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_watched(path=str(tmp_path), **coder(RecordingModel())) as watched:
        start = trio.current_time()
        run = await watched.send(script([{"fail": "rate_limit", "retry_after": 3600, "details": "Tomorrow."}]))
        assert (await watched.ended(run)).state is RunState.FAILED
        assert trio.current_time() == start


async def test_r20_retry_takes_back_what_the_failed_attempt_has_shown(autojump_clock: object, tmp_path: object) -> None:
    steps: list[dict[str, object]] = [
        {"think": "Hm. "},
        {"text": "All of this "},
        {"wait": 1},
        {"text": "was shown."},
        {"fail": "connection", "times": 1},
        {"text": " Again."},
    ]
    async with open_watched(path=str(tmp_path), **coder(RecordingModel())) as watched:
        async with read_along(watched.workspace) as reader:
            run = await watched.send(script(steps))
            await watched.ended(run)
            await reader.caught_up()
        [answer] = [message for message in await watched.messages() if message.role is Role.ASSISTANT]
        assert answer.text == "All of this was shown. Again."
        assert reader.texts[answer.id] == answer.text
        shown = reader.history[answer.id]
        assert "" in shown[shown.index("All of this was shown.") :]
        assert all("All of this was shown.All of this" not in text for text in shown)


async def test_r20_tool_call_of_a_failed_attempt_is_gone(autojump_clock: object, tmp_path: object) -> None:
    steps: list[dict[str, object]] = [
        {"tool": "nothing", "id": "call", "unfinished": True},
        {"fail": "connection", "times": 1},
        {"text": "ok"},
    ]
    async with open_watched(path=str(tmp_path), **coder(RecordingModel())) as watched:
        run = await watched.send(script(steps))
        await trio.sleep(0.5)
        [_, answer] = await watched.messages()
        assert answer.parts == ()
        # The second attempt makes the call again, and is stopped in the middle of it.
        await watched.workspace.cancel_run(run.id)
        await watched.ended(run)
        updates = [e.body.message for e in await watched.events() if isinstance(e.body, MessageUpdated)]
        assert [len(message.tool_calls) for message in updates] == [1, 0, 0]


async def test_r20_tool_call_of_a_failed_attempt_is_not_made(autojump_clock: object, tmp_path: object) -> None:
    tool = GateTool(gate=Gate(is_open=True))
    steps: list[list[dict[str, object]]] = [
        [{"tool": "wait", "id": "call"}, {"fail": "connection", "times": 1}],
        [{"text": "ok"}],
    ]
    async with open_watched(path=str(tmp_path), tools={"wait": tool}, **coder(RecordingModel())) as watched:
        assert (await watched.ended(await watched.send(script(*steps)))).state is RunState.COMPLETED
        assert tool.begun == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("a bug"), RunError("agent", "The agent failed", "RuntimeError: a bug")),
        (ModelError("server", "Down", "Wait."), RunError("server", "Down", "Wait.")),
        (
            ExceptionGroup("two", [ValueError("v"), ModelError("server", "Down", "Wait.")]),
            RunError("server", "Down", "Wait."),
        ),
    ],
)
async def test_r20_what_an_agent_raises_is_told(
    error: Exception, told: RunError, watched: Watched, autojump_clock: object
) -> None:
    async def respond(turn: Turn) -> None:
        turn.say("I was about to")
        raise error

    watched.agent.respond_with = respond
    run = await watched.send("hi")
    await check_told(watched, run, told)
    assert [message.text for message in await watched.messages()] == ["hi", "I was about to"]


async def test_r20_later_runs_are_shown_that_the_turn_failed(autojump_clock: object, tmp_path: object) -> None:
    model = RecordingModel()
    async with open_watched(path=str(tmp_path), **coder(model)) as watched:
        await watched.ended(
            await watched.send(script([{"text": "half"}, {"fail": "content_filter", "title": "Refused"}]))
        )
        await watched.ended(await watched.send(script([{"text": "ok"}])))
        assert "half" in model.last_seen
        assert "[This turn failed here: Refused]" in model.last_seen

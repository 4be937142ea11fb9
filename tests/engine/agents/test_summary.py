"""Summaries: written in time, shown in the place of what they stand for, and never for nothing."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from engine.agents.coder import CoderAgent
from engine.agents.summary import SUMMARY_PROMPT, needs_summary
from engine.errors import ModelError
from engine.models.catalog import OFFLINE, Models
from engine.models.offline import SCRIPT
from engine.models.protocol import (
    Chunk,
    ModelInfo,
    ModelRequest,
    StreamFinish,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    UsageReport,
)
from engine.models.settings import ModelSettings
from engine.records.message import FinishReason
from engine.records.run import Prompt, Purpose, RunState, Usage
from tests.doubles.engine import Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.tools import GateTool

WINDOW = 1000


def say(text: str, *, tokens: int = 10) -> list[Chunk]:
    usage = UsageReport(Usage(input_tokens=tokens, output_tokens=1))
    return [*([TextDelta(text)] if text else []), usage, StreamFinish(FinishReason.END_TURN)]


def use(tool: str, *, tokens: int = 10) -> list[Chunk]:
    call: list[Chunk] = [ToolCallStart("c", tool), ToolCallEnd("c")]
    return [*call, UsageReport(Usage(input_tokens=tokens)), StreamFinish(FinishReason.TOOL_USE)]


class Told:
    """A model that says what the test tells it, one answer after the other, and remembers what it was asked."""

    info = ModelInfo(id=SCRIPT, provider="offline", name="told", context_window=WINDOW, default_max_tokens=100)

    def __init__(self, *answers: Sequence[Chunk] | ModelError | Gate) -> None:
        self.answers = list(answers)
        self.requests: list[ModelRequest] = []

    @asynccontextmanager
    async def open_stream(self, request: ModelRequest) -> AsyncIterator[AsyncIterator[Sequence[Chunk]]]:
        self.requests.append(request)
        answer = self.answers.pop(0)

        async def stream() -> AsyncIterator[Sequence[Chunk]]:
            if isinstance(answer, ModelError):
                raise answer
            if isinstance(answer, Gate):
                yield say("half a summary")[:1]
                await answer.pass_through()
            else:
                yield answer

        yield stream()

    def statistics(self) -> Any:
        raise NotImplementedError


def opening(path: Path, model: Any, tool: GateTool | None = None) -> AbstractAsyncContextManager[Watched]:
    name = f"offline/{SCRIPT}"
    models = Models({OFFLINE.id: OFFLINE}, {}, {SCRIPT: model}, default_name=name, small_name=name)
    tools = {"look": tool or GateTool("look", gate=Gate(is_open=True))}
    agent, settings = CoderAgent(models, in_thread=False), ModelSettings(model=name)
    return open_watched(path=str(path), agent=agent, tools=tools, model_settings=settings)


def seen(request: ModelRequest) -> list[tuple[str, str]]:
    """Who says what in a request."""
    return [(one.role, "".join(getattr(part, "text", "") for part in one.parts)) for one in request.messages]


async def summarize(watched: Watched) -> Any:
    accepted = await watched.workspace.accept(
        Prompt(session_id=watched.session_id, text="Summarize.", purpose=Purpose.SUMMARIZE)
    )
    return await watched.ended(accepted.run)


async def test_a_summary_stands_for_what_was_said_before_it(autojump_clock: object, tmp_path: Path) -> None:
    model = Told(say("first answer"), say("in short"), say("second answer"))
    async with opening(tmp_path, model) as watched:
        await watched.ended(await watched.send("first"))
        assert (await summarize(watched)).state is RunState.COMPLETED
        await watched.ended(await watched.send("second"))
        _, short, second = model.requests
        assert (short.system, short.tools) == (SUMMARY_PROMPT, ())
        assert [text for _, text in seen(short)][:2] == ["first", "first answer"]
        assert "Summarize." not in str(seen(short))
        assert [role for role, _ in seen(second)] == ["user", "user"]
        assert "in short" in seen(second)[0][1]
        assert seen(second)[1] == ("user", "second")
        session = await watched.workspace.sessions.get(watched.session_id)
        [summary] = [message for message in await watched.messages() if message.is_summary]
        assert session.summary_message_id == summary.id


async def test_a_turn_that_comes_near_to_the_end_of_the_window_goes_on_from_a_summary(
    autojump_clock: object, tmp_path: Path
) -> None:
    model = Told(use("look"), use("look", tokens=WINDOW - 100), say("in short", tokens=WINDOW - 90), say("done"))
    async with opening(tmp_path, model) as watched:
        run = await watched.ended(await watched.send("work"))
        assert run.state is RunState.COMPLETED
        assert '"work"' in seen(model.requests[2])[-1][1]
        [told] = seen(model.requests[3])
        assert told[0] == "user"
        assert "in short" in told[1]
        kinds = [(message.role.value, message.is_summary) for message in await watched.messages()]
        assert kinds.count(("assistant", True)) == 1
        assert (await watched.messages())[-1].text == "done"
        reasons = [message.finish.reason for message in await watched.messages() if message.finish]
        assert FinishReason.ERROR not in reasons


@pytest.mark.parametrize("answer", [say(""), ModelError("bad_request", "No", "no"), None])
async def test_a_summary_that_came_to_nothing_stands_for_nothing(
    autojump_clock: object, tmp_path: Path, answer: Any
) -> None:
    gate = Gate()
    model = Told(say("first answer"), gate if answer is None else answer, say("second answer"))
    async with opening(tmp_path, model) as watched:
        await watched.ended(await watched.send("first"))
        if answer is None:  # canceled in the middle
            summary = await watched.workspace.accept(
                Prompt(session_id=watched.session_id, text="Summarize.", purpose=Purpose.SUMMARIZE)
            )
            await gate.reached()
            await watched.workspace.cancel_run(summary.run.id)
            await watched.ended(summary.run)
        else:
            await summarize(watched)
        await watched.ended(await watched.send("second"))
        assert seen(model.requests[-1])[0] == ("user", "first")
        assert (await watched.workspace.sessions.get(watched.session_id)).summary_message_id is None


@pytest.mark.parametrize(
    ("window", "used", "expected"),
    [
        (0, 10**9, False),
        (1000, 799, False),
        (1000, 800, True),
        (200_000, 159_999, False),
        (200_000, 160_000, True),
        (1_000_000, 979_999, False),
        (1_000_000, 980_000, True),
    ],
)
def test_the_thresholds(window: int, used: int, expected: bool) -> None:
    model = ModelInfo(id="m", provider="p", name="m", context_window=window, default_max_tokens=1)
    assert needs_summary(model, Usage(input_tokens=used - 3, cache_read_tokens=1, output_tokens=2)) is expected

"""Which model a run asks, and what that costs: two providers of one's own, over real sockets."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.backend import NewWorkspace, open_backend
from engine.models.settings import ModelSettings
from engine.records.ids import SessionId
from engine.records.message import Role
from engine.records.run import Prompt, RunRecord, RunState
from engine.settings import EngineSettings
from engine.workspace import Workspace
from tests.doubles import anthropic_server as anthropic
from tests.doubles.model_server import HANG, ModelServer, Reply, open_model_server
from tests.doubles.openai_server import answer, say, stop, used
from tests.doubles.reading import Reader

pytestmark = pytest.mark.slow

PRICES = {"cost_in": 10, "cost_out": 100, "cost_in_cached": 20, "cost_out_cached": 1}
MILLION = 1_000_000


class Site:
    """A server that stands for both providers, and the workspace that asks them."""

    def __init__(self, server: ModelServer, small: ModelServer, workspace: Workspace) -> None:
        self.server = server
        self.small = small
        self.workspace = workspace

    async def run(self, model: str | None = None, session_id: SessionId | None = None) -> RunRecord:
        """A prompt, answered."""
        session = session_id or (await self.workspace.sessions.create("titled")).id
        accepted = await self.workspace.accept(Prompt(session_id=session, text="hi", model=model))
        return await self.workspace.wait_run(accepted.run.id, 15)

    def asked(self) -> list[tuple[str, str]]:
        """Where it was asked, and for which model."""
        return [(request.path, request.body["model"]) for request in self.server.requests]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """The engine with its built-in agent; 20 seconds for the whole test."""
    with trio.fail_after(20):
        async with open_model_server() as server, open_model_server() as small:
            small.default = answer(say("A title"), stop())
            models = {
                "model": "one/large", "small_model": "small/tiny",
                "providers": {
                    "one": {"base_url": server.base_url, "models": [{"id": "large", **PRICES}]},
                    "two": {"base_url": server.root, "type": "anthropic", "models": [{"id": "other", **PRICES}]},
                    "small": {"base_url": small.base_url},
                },
            }  # fmt: skip
            async with open_backend(
                EngineSettings(data_dir=None), model_settings=ModelSettings.from_data(models), environ={}
            ) as backend:
                yield Site(server, small, await backend.create_workspace(NewWorkspace(path=str(tmp_path))))


def hello(**usage: int) -> Reply:
    """An answer of Anthropic's."""
    return anthropic.answer(anthropic.start(**usage), *anthropic.text(0, "Hello"), *anthropic.stop(), begin=False)


async def test_a_run_asks_the_model_of_its_prompt_and_the_next_one_the_usual_one(site: Site) -> None:
    site.server.enqueue(answer(say("x"), stop()), hello(), answer(say("x"), stop()))
    runs = [await site.run(), await site.run("two/other"), await site.run()]
    assert [run.state for run in runs] == [RunState.COMPLETED] * 3
    assert site.asked() == [
        ("/v1/chat/completions", "large"), ("/v1/messages", "other"), ("/v1/chat/completions", "large"),
    ]  # fmt: skip
    messages = await site.workspace.sessions.messages(runs[1].session_id)
    assert [(m.provider, m.model) for m in messages if m.role is Role.ASSISTANT] == [("two", "other")]


async def test_titles_are_found_by_the_small_model_that_is_chosen(site: Site) -> None:
    site.server.default = answer(say("x"), stop())
    await site.run()
    assert (await site.small.wait_request(1)).body["model"] == "tiny"
    await site.workspace.choose_model("small", "small/tinier")
    await site.run()
    assert (await site.small.wait_request(2)).body["model"] == "tinier"


@pytest.mark.parametrize(
    ("model", "reply"),
    [
        ("one/large", answer(say("x"), stop(), used(100, 5, cached=60))),
        ("two/other", hello(input_tokens=40, cache_read_input_tokens=60)),
    ],
)
async def test_a_session_is_told_what_its_run_cost_with_the_cached_tokens_at_their_price(
    model: str, reply: Reply, site: Site
) -> None:
    site.server.enqueue(reply)
    run = await site.run(model)
    session = await site.workspace.sessions.get(run.session_id)
    assert session.cost * MILLION == pytest.approx(40 * 10 + 60 * 1 + 5 * 100)


async def test_an_attempt_that_was_taken_back_was_paid_for(site: Site) -> None:
    broken: Any = (
        anthropic.start(input_tokens=40),
        *anthropic.text(0, "lost"),
        anthropic.error("overloaded_error", "x"),
    )
    site.server.enqueue(anthropic.answer(*broken, begin=False), hello(input_tokens=40))
    run = await site.run("two/other")
    [_, told] = await site.workspace.sessions.messages(run.session_id)
    assert told.text == "Hello"
    session = await site.workspace.sessions.get(run.session_id)
    assert session.cost * MILLION == pytest.approx(40 * 10 + 1 * 100 + 40 * 10 + 5 * 100)


async def test_a_run_that_fails_has_cost_what_it_cost(site: Site) -> None:
    refused = anthropic.error("invalid_request_error", "no")
    begun = anthropic.start(input_tokens=40, output_tokens=2)
    site.server.enqueue(anthropic.answer(begun, *anthropic.text(0, "half"), refused, begin=False))
    run = await site.run("two/other")
    assert run.state is RunState.FAILED
    session = await site.workspace.sessions.get(run.session_id)
    assert session.cost * MILLION == pytest.approx(40 * 10 + 2 * 100)


async def test_a_run_that_is_canceled_has_cost_what_it_cost(site: Site) -> None:
    begun = anthropic.start(input_tokens=40, output_tokens=2)
    site.server.enqueue(anthropic.answer(begun, *anthropic.text(0, "half"), HANG, begin=False))
    session_id = (await site.workspace.sessions.create("titled")).id
    runs: list[RunRecord] = []

    async def run() -> None:
        runs.append(await site.run("two/other", session_id))

    async with site.workspace.open_feed(after=None) as feed, trio.open_nursery() as nursery:
        reader = Reader(feed)
        nursery.start_soon(run)
        while "half" not in reader.texts.values():
            await reader.read_once()
        await site.workspace.cancel_session(session_id)
    assert runs[0].state is RunState.CANCELED
    session = await site.workspace.sessions.get(session_id)
    assert session.cost * MILLION == pytest.approx(40 * 10 + 2 * 100)

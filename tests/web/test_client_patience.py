"""The client against servers that misbehave, leave, or are away for a while."""

from collections.abc import Callable

import httpx2
import msgspec
import pytest
import trio
from trio.testing import MockClock

from engine.errors import ConfigInvalid
from engine.records.run import RunState
from web.client import CountermandClient, open_client
from web.client_errors import NotUnderstood, ServerProblem, ServerUnreachable
from web.client_patience import GIVE_UP_S

CLIENT = "5b0c7f1e-54b6-4c3e-8f5c-0c0f3c1b2a10"


def client_of(answer: Callable[[httpx2.Request], httpx2.Response]) -> CountermandClient:
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answer), base_url="http://server")
    return CountermandClient(client, "tcp://server:1")


async def test_a_prompt_whose_answer_is_lost_is_sent_again_under_the_same_id() -> None:
    sent: list[dict[str, object]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(msgspec.json.decode(request.content))
        if len(sent) < 3:
            raise httpx2.ReadError("the connection broke")
        accepted = {"run_id": sent[-1]["run_id"], "session_id": "s", "state": "accepted", "seq": 1}
        return httpx2.Response(202, json=accepted)

    accepted = await client_of(answer).send_prompt("w", "s", "hi")
    assert len({str(body["run_id"]) for body in sent}) == 1
    assert accepted.run_id == sent[0]["run_id"]


async def test_a_prompt_that_cannot_be_sent_is_given_up_after_a_minute(autojump_clock: MockClock) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("the connection broke")

    began = trio.current_time()
    with pytest.raises(ServerUnreachable, match="tcp://server:1 broke"):
        await client_of(answer).send_prompt("w", "s", "hi")
    assert GIVE_UP_S < trio.current_time() - began < GIVE_UP_S + 10


async def test_a_prompt_waits_for_a_server_that_leaves_and_for_the_next_one(autojump_clock: MockClock) -> None:
    """The one leaves, nobody listens for a while, and the next one has the workspace closed."""
    answers: list[Callable[[], httpx2.Response]] = [
        lambda: workspace_shape("w"),
        lambda: refusal(503, "server_stopping"),
        nobody_listens,
        nobody_listens,
        lambda: refusal(404, "workspace_not_found"),
        nobody_listens,
        lambda: workspace_shape("w"),
        lambda: httpx2.Response(202, json={"run_id": "r", "session_id": "s", "state": "accepted", "seq": 1}),
    ]
    asked: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path)
        return answers.pop(0)()

    client = client_of(answer)
    await client.create_workspace("/project", client_id=CLIENT)
    assert (await client.send_prompt("w", "s", "hi", run_id="r")).run_id == "r"
    assert asked == ["/v1/workspaces", *["/v1/workspaces/w/agent"] * 4, *["/v1/workspaces"] * 2, asked[1]]


async def test_a_workspace_that_somebody_else_has_opened_is_not_opened_again() -> None:
    with pytest.raises(ServerProblem) as refused:
        await client_of(lambda _: refusal(404, "workspace_not_found")).send_prompt("w", "s", "hi")
    assert refused.value.type == "workspace_not_found"


async def test_a_run_is_followed_where_a_server_has_started_anew(autojump_clock: MockClock) -> None:
    """It is away at first; the next one has the workspace closed."""
    end = {"session_id": "s", "run_id": "r", "message_id": "m", "state": "completed", "text": "hi"}
    event = msgspec.json.encode({"type": "run_complete", "payload": {"type": "updated", "payload": end}})
    answers: list[Callable[[], httpx2.Response]] = [
        lambda: workspace_shape("w"),
        nobody_listens,
        lambda: refusal(503, "server_stopping"),
        lambda: refusal(404, "workspace_not_found"),
        lambda: workspace_shape("w"),
        lambda: httpx2.Response(200, stream=httpx2.ByteStream(b"id: 7\ndata: " + event + b"\n\n")),
    ]
    client = client_of(lambda _: answers.pop(0)())
    await client.create_workspace("/project", client_id=CLIENT)
    async with client.open_run("w", "r", client_id=CLIENT) as run:
        assert [piece.text async for piece in run] == ["hi"]
        assert run.result.state is RunState.COMPLETED


async def test_a_stream_is_open_once_it_is_known_where_it_goes_on(autojump_clock: MockClock) -> None:
    """A connection that breaks before that would go on at another place."""
    asked: list[str | None] = []
    title = msgspec.json.encode({"type": "unknown", "payload": {"type": "created", "payload": {}}})
    bodies = [b"", b"id: 6\n\n", b"id: 7\ndata: " + title + b"\n\n"]

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        return httpx2.Response(200, stream=httpx2.ByteStream(bodies.pop(0)))

    async with client_of(answer).open_events("w") as events:
        assert asked == [None, None]
        assert (await anext(events)).seq == 7
    assert asked == [None, None, "6"]


def refusal(status: int, word: str) -> httpx2.Response:
    return httpx2.Response(status, json={"message": word, "type": word})


def nobody_listens() -> httpx2.Response:
    raise httpx2.ConnectError("nobody listens")


def workspace_shape(workspace_id: str) -> httpx2.Response:
    config: dict[str, dict[str, object]] = {"models": {}, "providers": {}, "options": {}}
    workspace = {"id": workspace_id, "path": "/p", "data_dir": "", "version": "1", "config": config, "skills": []}
    return httpx2.Response(200, json=workspace)


async def test_a_refused_prompt_is_not_sent_again() -> None:
    tries = 0

    def answer(request: httpx2.Request) -> httpx2.Response:
        nonlocal tries
        tries += 1
        return httpx2.Response(
            400, json={"message": "prompt: it is empty", "type": "invalid_prompt", "field": "prompt"}
        )

    with pytest.raises(ServerProblem) as refused:
        await client_of(answer).send_prompt("w", "s", "")
    assert (refused.value.field, tries) == ("prompt", 1)


async def test_something_that_is_no_server_of_ours_is_not_understood() -> None:
    with pytest.raises(NotUnderstood, match="tcp://server:1 is no countermand server"):
        await client_of(lambda request: httpx2.Response(200, text="<html>")).version()
    with pytest.raises(ServerProblem, match="502"):
        await client_of(lambda request: httpx2.Response(502, text="<html>")).version()


async def test_ids_are_single_segments_of_the_path() -> None:
    asked: list[bytes] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.raw_path)
        return httpx2.Response(200, json=[])

    await client_of(answer).messages("../w", "a$$b/c?d")
    assert asked == [b"/v1/workspaces/..%2Fw/sessions/a$$b%2Fc%3Fd/messages"]


@pytest.mark.parametrize("host", ["tcp://127.0.0.1:1", "unix:///nowhere/at/all.sock"])
async def test_where_nobody_listens_is_said_with_what_to_do(host: str) -> None:
    async with open_client(host) as client:
        with pytest.raises(ServerUnreachable, match=f"listening on {host}; start one with: countermand serve"):
            await client.version()


async def test_a_host_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ConfigInvalid):
        async with open_client("localhost"):
            pass

"""Google's own SDK as an oracle: it hears what our client hears, and would send what our client sends. What it
heard and sent is recorded: see `recording`."""

import re
from typing import Any

import msgspec
import pytest

from engine.errors import ModelError
from engine.models.provider import open_provider
from tests.doubles.model_server import ModelServer, refusal
from tests.engine.models.asking import KEY, ask, endpoint, flat
from tests.engine.models.gemini.recording import INFO, REFUSALS, REPLIES, REQUESTS, cases, recorded
from tests.engine.models.oracle import Whole, put_together

ANEW = "these are not the cases that were recorded: python -m tests.engine.models.gemini.recording"


def test_the_recording_is_of_these_cases() -> None:
    told, asked = recorded(), msgspec.json.decode(msgspec.json.encode(cases()))
    assert [each["stream"] for each in told["heard"]] == asked["heard"], ANEW
    assert [{key: each[key] for key in ("status", "body")} for each in told["refused"]] == asked["refused"], ANEW
    assert [each["ours"] for each in told["sent"]] == asked["sent"], ANEW


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(REPLIES)))
async def test_the_sdk_heard_what_our_client_hears(number: int, server: ModelServer) -> None:
    server.enqueue(REPLIES[number])
    async with open_provider(msgspec.structs.replace(endpoint(server.root), type="gemini")) as provider:
        ours = put_together(flat(await ask(provider.model(INFO))))
    assert ours == msgspec.convert(recorded()["heard"][number]["whole"], Whole)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(REFUSALS)))
async def test_the_sdk_was_refused_when_our_client_is(number: int, server: ModelServer) -> None:
    told = recorded()["refused"][number]
    server.enqueue(refusal(told["status"], REFUSALS[number]))
    async with open_provider(msgspec.structs.replace(endpoint(server.root), type="gemini")) as provider:
        with pytest.raises(ModelError) as caught:
            await ask(provider.model(INFO))
    assert caught.value.status == told["error"]["code"]
    assert told["error"]["message"] in caught.value.details


def in_camels(value: Any) -> Any:
    """With the names of fields as the protocol writes them: it takes them in snakes too, and the SDK sends both."""
    if isinstance(value, list):
        return [in_camels(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {re.sub(r"_([a-z])", lambda found: found[1].upper(), key): in_camels(each) for key, each in value.items()}


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(REQUESTS)))
async def test_the_sdk_would_send_what_our_client_sends(number: int, server: ModelServer) -> None:
    info, asked = REQUESTS[number]
    server.enqueue(REPLIES[0])
    async with open_provider(msgspec.structs.replace(endpoint(server.root), type="gemini")) as provider:
        await ask(provider.model(info), asked)
    [ours] = server.requests
    theirs = recorded()["sent"][number]["theirs"]
    assert in_camels(theirs["body"]) == ours.body
    assert theirs["path"].removeprefix("/v1/") == ours.path.removeprefix("/v1beta/")  # both have all that we send
    assert theirs["content-type"] == ours.headers["content-type"]
    assert ours.headers["x-goog-api-key"] == KEY  # where the SDK put its own, as the recording made sure

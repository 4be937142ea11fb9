"""The details of a thought, which OpenRouter wants back as it gave them."""

from typing import Any

import msgspec
import pytest

from engine.models.chat.answer import ChatAnswer
from engine.models.chat.wire import Details
from engine.models.protocol import Chunk, ReasoningDelta, StreamFinish, TextDelta, ToolCallStart
from engine.models.provider import open_provider
from engine.models.provider_errors import Blame
from engine.records.message import FinishReason, Reasoning, ToolCall
from tests.doubles.openai_server import ModelServer, answer, call, piece, say, stop
from tests.engine.models.asking import INFO, ask, assistant, endpoint, flat, request, results, user

BLAME = Blame(provider="Test", model="m", base_url="http://test", key_hint="the key")
SEALED = {"type": "reasoning.encrypted", "data": "c2VjcmV0", "id": "rs_1", "format": "openai-responses-v1", "index": 1}


def words(index: int, text: str, **more: object) -> dict[str, object]:
    """A piece of what was thought."""
    return {"type": "reasoning.text", "text": text, "index": index, **more}


def details(*entries: object, **more: object) -> dict[str, object]:
    """A piece of a stream with these details."""
    return piece({"reasoning_details": list(entries), **more})


def read(*pieces: object) -> list[Chunk]:
    """The chunks of a stream of these pieces."""
    return ChatAnswer(BLAME).read([*map(msgspec.json.encode, pieces), b"[DONE]"])


def kept(chunks: list[Chunk]) -> list[Any]:
    """The entries that are kept for the provider."""
    return Details.parse(chunk.signature for chunk in chunks if isinstance(chunk, ReasoningDelta))


def test_the_pieces_of_an_entry_are_put_together_before_the_words_that_follow() -> None:
    chunks = read(
        details(words(0, "I ", signature=None), reasoning="I "),
        details(words(0, "think.", signature="c2ln"), reasoning="think."),
        details(SEALED),
        say("So."),
        stop(),
    )
    assert [type(chunk) for chunk in chunks] == [
        ReasoningDelta,
        ReasoningDelta,
        ReasoningDelta,
        TextDelta,
        StreamFinish,
    ]
    assert kept(chunks) == [words(0, "I think.", signature="c2ln"), SEALED]


def test_details_that_come_with_a_call_are_kept_in_front_of_it() -> None:
    called: dict[str, Any] = call(0, id="a", name="look", arguments="{}")
    called["choices"][0]["delta"]["reasoning_details"] = [SEALED]
    chunks = read(details(words(0, "hm"), reasoning="hm"), called, stop("tool_calls"))
    assert kept(chunks) == [words(0, "hm"), SEALED]
    assert isinstance(chunks[1], ReasoningDelta)
    assert isinstance(chunks[2], ToolCallStart)


def test_details_that_come_last_are_kept() -> None:
    chunks = read(say("x"), details(SEALED), stop())
    assert kept(chunks) == [SEALED]
    assert chunks[-1] == StreamFinish(FinishReason.END_TURN)


@pytest.mark.parametrize("odd", [None, "text", {"type": "x"}, [None, "text", 7]])
def test_details_of_another_form_are_passed_over(odd: object) -> None:
    assert kept(read(piece({"reasoning_details": odd}), say("x"), stop())) == []


@pytest.mark.slow
async def test_details_come_back_to_who_gave_them(server: ModelServer) -> None:
    server.enqueue(
        answer(details(words(0, "hm"), SEALED, reasoning="hm"), call(0, id="a", name="look"), stop("tool_calls")),
        answer(say("Done."), stop()),
    )
    target = msgspec.structs.replace(endpoint(server.base_url), send_reasoning_as="reasoning_details")
    async with open_provider(target) as provider:
        [thought, signed, *_] = flat(await ask(provider.model(INFO)))
        assert isinstance(thought, ReasoningDelta)
        assert isinstance(signed, ReasoningDelta)
        told = assistant(Reasoning(thought.text, signed.signature), ToolCall("a", "look", "{}"))
        await ask(provider.model(INFO), request(user("look"), told, results("a")))
    [_, _, again, _] = server.requests[1].body["messages"]
    assert again["reasoning_details"] == [words(0, "hm"), SEALED]

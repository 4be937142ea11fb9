"""The developer behind an HTTP API: a provider that speaks chat completions, and decides by what it is shown."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import msgspec

from tests.doubles.model_server import ModelServer, Move, Reply, Request, open_model_server
from tests.doubles.openai_server import answer, call, say, stop, think, used
from tests.story import developer
from tests.story.conversation import read_conversation

MODEL = "openai/developer"


class Typing:
    """Answers requests, a few words at a time; `pause_s` lies between them."""

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._ids = count(1)

    def reply(self, request: Request) -> Reply:
        """The answer to a request."""
        body = request.body
        if not body.get("tools"):
            return answer(say(title_of(body)), stop(), used(20, 5))
        move = developer.decide(read_conversation(body))
        pieces: list[Move | Mapping[str, object]] = []
        if move.thinks:
            pieces += [think(move.thinks), *self._pause()]
        for words in re.findall(r"(?:\S+\s*){1,4}", move.says):
            pieces += [say(words), *self._pause()]
        for index, (name, arguments) in enumerate(move.calls):
            text = msgspec.json.encode(arguments).decode()
            half = len(text) // 2
            pieces += [
                call(index, id=f"call-{next(self._ids)}", name=name, arguments=text[:half]), *self._pause(),
                call(index, arguments=text[half:]),
            ]  # fmt: skip
        size = len(request.raw_body) // 4
        return answer(*pieces, stop("tool_calls" if move.calls else "stop"), used(size, 10 + len(move.says) // 4))

    def _pause(self) -> tuple[float, ...]:
        return (self._pause_s,) if self._pause_s else ()


def title_of(body: Mapping[str, Any]) -> str:
    """What a session is called that begins like this."""
    words: str = body["messages"][-1]["content"]
    return words.partition(":")[0][:50]


@asynccontextmanager
async def open_developer(*, pause_s: float = 0.0) -> AsyncIterator[ModelServer]:
    """The developer, on a free port of 127.0.0.1."""
    async with open_model_server() as server:
        server.default = Typing(pause_s).reply
        yield server


def model_environment(server: ModelServer) -> dict[str, str]:
    """What tells an engine to ask the developer."""
    return {"OPENAI_BASE_URL": server.base_url, "COUNTERMAND_MODEL": MODEL}

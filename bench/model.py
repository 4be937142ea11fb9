"""A language model on a local socket that answers as a prompt says, and keeps a record of every call.

`slow …` is streamed, a word at a time, until whoever asked goes away; everything else gets a short answer at once. Each
connection is for one call, so that connections opened and connections closed can be counted against each other.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import trio

from bench.harness import Bell
from engine.agents.system_prompt import TITLE_PROMPT

SLOW = "slow"
WORD_S = 0.01  # between two words of a slow answer
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


@dataclass(eq=False)
class Call:
    """One request. `closed_at` is when the one who asked closed the connection."""

    prompt: str
    texts: tuple[str, ...]  # everything that was shown to the model
    is_title: bool
    opened_at: float
    closed_at: float | None = None
    was_answered: bool = False


@dataclass
class Model:
    """The running model."""

    base_url: str
    calls: list[Call] = field(default_factory=list)
    opened: int = 0  # connections
    closed: int = 0
    _asked: set[str] = field(default_factory=set)
    _bell: Bell = field(default_factory=Bell)

    @property
    def environ(self) -> dict[str, str]:
        """What tells a server to ask this model."""
        return {"COUNTERMAND_MODEL": "openai/local", "OPENAI_BASE_URL": self.base_url, "OPENAI_API_KEY": "none"}

    async def wait_called(self, prompt: str, within_s: float) -> None:
        """Wait until it was asked to answer this prompt, but not for ever."""
        await self._bell.wait_until(lambda: prompt in self._asked, within_s)

    async def wait_closed(self, within_s: float) -> None:
        """Wait until every connection is closed, but not for ever."""
        await self._bell.wait_until(lambda: self.closed >= self.opened, within_s)

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection."""
        self.opened += 1
        call = None
        try:
            async with stream:
                call = await _read_call(stream)
                if call is not None:
                    self._note(call)
                    await _answer(stream, call)
        except trio.BrokenResourceError:
            await trio.lowlevel.checkpoint()
        finally:
            self.closed += 1
            if call is not None:
                call.closed_at = trio.current_time()
            self._bell.ring()

    def _note(self, call: Call) -> None:
        self.calls.append(call)
        if not call.is_title:
            self._asked.add(call.prompt)
        self._bell.ring()


@asynccontextmanager
async def open_model() -> AsyncIterator[Model]:
    """A model on a free port of 127.0.0.1."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    model = Model(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1")
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, model.serve, listeners))
        try:
            yield model
        finally:
            nursery.cancel_scope.cancel()


async def _read_call(stream: trio.SocketStream) -> Call | None:
    """The request; None if the connection was closed before one came."""
    data = await stream.receive_some()
    while b"\r\n\r\n" not in data:
        piece = await stream.receive_some()
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(lines.get(b"content-length", b"0")):
        piece = await stream.receive_some()
        if not piece:
            return None
        body += piece
    messages: list[dict[str, Any]] = msgspec.json.decode(body)["messages"]
    texts = tuple(str(message["content"]) for message in messages)
    return Call(texts[-1], texts, TITLE_PROMPT in texts, trio.current_time())


async def _answer(stream: trio.SocketStream, call: Call) -> None:
    await stream.send_all(HEAD)
    if call.is_title or not call.prompt.startswith(SLOW):
        await stream.send_all(_chunk(_said("A short answer.", "stop")) + _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        call.was_answered = True
        await _wait_gone(stream)
        return
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_talk, stream)
        await _wait_gone(stream)
        nursery.cancel_scope.cancel()


async def _wait_gone(stream: trio.SocketStream) -> None:
    """Return once the other side has closed, with an end or with a reset."""
    with suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass
    await trio.lowlevel.checkpoint()


async def _talk(stream: trio.SocketStream) -> None:
    word = _chunk(_said("word ", None))
    with suppress(trio.BrokenResourceError):
        while True:
            await stream.send_all(word)
            await trio.sleep(WORD_S)
    await trio.lowlevel.checkpoint()


def _said(text: str, finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    piece = {"id": "c", "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + msgspec.json.encode(piece) + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)

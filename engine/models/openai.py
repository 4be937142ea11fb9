"""OpenAI-compatible providers: chat completions, streamed over HTTP."""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import httpx2
import msgspec
import trio

from engine import __version__
from engine.errors import ConfigInvalid, ModelError
from engine.models.openai_answer import Answer
from engine.models.openai_errors import Blame, error_of_status, error_of_transport
from engine.models.openai_request import encode_request
from engine.models.protocol import Chunk, ModelInfo, ModelRequest, ModelStream
from engine.models.settings import Secret
from engine.models.sse_lines import EventPayloads
from engine.models.statistics import RequestCount, RequestStatistics

CLOSE_SECONDS = 2.0  # closing a socket waits for nobody; this bounds what we do not know of
AFTER_REASON_SECONDS = 5.0  # the usage and `[DONE]` follow the reason at once, if they follow at all
DRAIN_SECONDS = 0.25  # for the end of the body, so that the connection can be used again
ERROR_BODY_SECONDS = 10.0
ERROR_BODY_BYTES = 64 * 1024
BATCHES_PER_CHECKPOINT = 16  # what is already here is handed over without one
WRITE_SECONDS = 60.0
KEPT_CONNECTIONS = 64
KEPT_SECONDS = 60.0

_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where a provider is and how it is spoken to."""

    provider: str
    name: str
    base_url: str
    api_key: Secret | None = None
    key_hint: str = "`api_key` in the provider's settings"
    connect_timeout_s: float = 15.0
    read_timeout_s: float = 300.0

    @property
    def url(self) -> str:
        """Where chat completions are asked for."""
        return self.base_url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return urlsplit(self.base_url).hostname in _LOOPBACK

    @property
    def max_tokens_field(self) -> str:
        """OpenAI's newer models refuse the old name, which everybody else knows."""
        return "max_completion_tokens" if urlsplit(self.base_url).hostname == "api.openai.com" else "max_tokens"

    def check(self, field: str) -> None:
        """Raises `ConfigInvalid` for an address or a key that cannot be used, without showing the key."""
        try:
            parts = urlsplit(self.base_url)
            is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # the port is no number
            raise ConfigInvalid(field, "the base URL must look like https://host:port/v1") from None
        if not is_usable:
            raise ConfigInvalid(field, "the base URL must look like https://host/v1")
        if parts.username or parts.password:
            raise ConfigInvalid(field, "the base URL must not hold a password; give the key as api_key")
        if self.api_key is not None and not (self.api_key.reveal().isascii() and self.api_key.reveal().isprintable()):
            raise ConfigInvalid(field, "the key has characters that no key has; was it copied with a line break?")


class OpenAIProvider:
    """One opened provider: a pool of connections, and models that share it."""

    def __init__(self, endpoint: Endpoint, client: httpx2.AsyncClient) -> None:
        self._endpoint = endpoint
        self._client = client
        self._count = RequestCount()

    def model(self, info: ModelInfo) -> "OpenAIModel":
        """The model `info` of this provider; whether the provider has it shows when it is asked."""
        return OpenAIModel(self._endpoint, self._client, self._count, info)

    def statistics(self) -> RequestStatistics:
        """How many requests were begun, and how many of them are over."""
        return self._count.statistics()


def _headers(endpoint: Endpoint) -> dict[str, str]:
    headers = {
        "User-Agent": f"countermand/{__version__}",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key.reveal()}"
    return headers


@asynccontextmanager
async def open_openai(endpoint: Endpoint) -> AsyncIterator[OpenAIProvider]:
    """Open a provider. Owns its connections; makes none before it is asked. Raises `ConfigInvalid`."""
    endpoint.check(f"providers.{endpoint.provider}")
    client = httpx2.AsyncClient(
        headers=_headers(endpoint),
        timeout=httpx2.Timeout(
            connect=endpoint.connect_timeout_s, read=endpoint.read_timeout_s, write=WRITE_SECONDS, pool=None
        ),
        limits=httpx2.Limits(
            max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS, keepalive_expiry=KEPT_SECONDS
        ),
        # A server on this machine needs neither the environment's proxy nor the certificates, which take 70 ms to load.
        trust_env=not endpoint.is_local,
        verify=not (endpoint.is_local and endpoint.base_url.startswith("http://")),
    )
    try:
        yield OpenAIProvider(endpoint, client)
    finally:
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await client.aclose()


class OpenAIModel:
    """One model of a provider."""

    def __init__(self, endpoint: Endpoint, client: httpx2.AsyncClient, count: RequestCount, info: ModelInfo) -> None:
        self._endpoint = endpoint
        self._client = client
        self._count = count
        self._info = info
        self._blame = Blame(
            provider=endpoint.name, model=info.id, base_url=endpoint.base_url, key_hint=endpoint.key_hint,
            key=endpoint.api_key,
        )  # fmt: skip

    @property
    def info(self) -> ModelInfo:
        return self._info

    @asynccontextmanager
    async def open_stream(self, request: ModelRequest) -> AsyncIterator[ModelStream]:
        body = encode_request(request, self._info, max_tokens_field=self._endpoint.max_tokens_field)
        with self._count.request():
            response = await self._send(body)
            pieces = _Body(response)
            try:
                if response.status_code != httpx2.codes.OK:
                    raise await self._refusal(response, pieces)
                yield _AnswerStream(pieces, self._blame)
            finally:
                # Whatever ended this, cancellation included, the connection is closed now, or given back if the answer
                # was read to its end. Neither waits for the provider.
                with trio.move_on_after(CLOSE_SECONDS, shield=True):
                    await pieces.aclose()

    async def _send(self, body: bytes) -> httpx2.Response:
        try:
            request = self._client.build_request("POST", self._endpoint.url, content=body)
            return await self._client.send(request, stream=True)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise error_of_transport(error, self._blame, during_answer=False) from error

    async def _refusal(self, response: httpx2.Response, pieces: "_Body") -> ModelError:
        body = b""
        # What cannot be read of it is not missed: the status says enough.
        with trio.move_on_after(ERROR_BODY_SECONDS), suppress(httpx2.HTTPError):
            piece = await pieces.receive()
            while piece is not None and len(body) < ERROR_BODY_BYTES:
                body += piece
                piece = await pieces.receive()
        await trio.lowlevel.checkpoint()
        return error_of_status(response.status_code, response.headers, body, self._blame)


class _Body:
    """The body of a response, piece by piece."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        is_plain = "content-encoding" not in response.headers
        self._pieces = response.aiter_raw() if is_plain else response.aiter_bytes()

    async def receive(self) -> bytes | None:
        """The next piece, or None at the end. Raises `httpx2.HTTPError`."""
        return await anext(self._pieces, None)

    async def aclose(self) -> None:
        """Let go of it, closing the connection unless the body was read to its end."""
        # httpx2 leaves its inner generators to the garbage collector when it is closed between two pieces, which Trio
        # resents. Reading on in a scope that is over unwinds them: what is buffered, then the cancellation.
        with trio.move_on_after(0), suppress(httpx2.HTTPError):
            while await self.receive() is not None:
                pass
        await self._response.aclose()


class _AnswerStream:
    """The batches of one answer: what each piece of the body completed."""

    def __init__(self, body: _Body, blame: Blame) -> None:
        self._body = body
        self._blame = blame
        self._answer = Answer(blame)
        self._events = EventPayloads()
        self._patience = math.inf  # when to do without what may follow the reason
        self._batches = 0

    def __aiter__(self) -> "_AnswerStream":
        return self

    async def __anext__(self) -> tuple[Chunk, ...]:
        self._batches += 1
        if self._batches % BATCHES_PER_CHECKPOINT == 0:
            await trio.lowlevel.checkpoint()
        while not self._answer.is_over:
            data = await self._receive()
            chunks = self._end() if data is None else self._answer.read(self._events.feed(data))
            if chunks:
                return tuple(chunks)
        await self._drain()
        raise StopAsyncIteration

    def _end(self) -> list[Chunk]:
        chunks = self._answer.read(self._events.end())
        return chunks + self._answer.end()

    async def _receive(self) -> bytes | None:
        """The next piece of the body, or None when there is no more, or none that needs to be waited for."""
        try:
            if not self._answer.has_reason:
                return await self._body.receive()
            self._patience = min(self._patience, trio.current_time() + AFTER_REASON_SECONDS)
            with trio.move_on_at(self._patience):
                return await self._body.receive()
        except httpx2.HTTPError as error:
            if not self._answer.has_reason:
                raise error_of_transport(error, self._blame, during_answer=True) from error
        await trio.lowlevel.checkpoint()
        return None

    async def _drain(self) -> None:
        # The answer is complete; what fails now costs a connection and nothing else.
        with trio.move_on_after(DRAIN_SECONDS), suppress(httpx2.HTTPError):
            while await self._body.receive() is not None:
                pass
        await trio.lowlevel.checkpoint()

"""Readers that lose their connection again and again: raw ones that count every number, and the client library's."""

import random
from contextlib import suppress
from typing import Any

import msgspec
import trio

from tests.crash.ledger import Ledger, Violation
from tests.crash.proxy import CuttingProxy
from tests.crash.readers import GONE
from tests.crash.texts import Texts
from tests.doubles.live_server import Answer, Connection
from web.client import CountermandClient
from web.client_errors import ServerUnreachable
from web.client_events import ClientEvent, EventReader

AWAY_S = 0.05  # between two tries where nobody is


class Audience:
    """What the readers share: where they read, what they have seen, how often they came back."""

    def __init__(self, ledger: Ledger, proxy: CuttingProxy, client: CountermandClient, draw: random.Random) -> None:
        self.ledger = ledger
        self.proxy = proxy
        self.client = client  # of the proxy
        self.draw = draw
        self.workspace_id = ""
        self.direct = 0  # streams that were opened without the proxy
        self.readers = 0
        self.texts: list[tuple[Texts, str]] = []  # of each reader, and the run that it followed from beginning to end
        self.of_runs: dict[str, list[list[int]]] = {}  # the numbers that each reader of a run was given
        self.followed = 0

    @property
    def reconnects(self) -> int:
        """How often a reader came back, and a server has gone on telling it."""
        return max(self.proxy.streams + self.direct - self.readers, 0)

    def have_read(self, run_id: str, numbers: list[int]) -> None:
        """A run was read to its end."""
        self.of_runs.setdefault(run_id, []).append(numbers)
        self.ledger.ring()

    @property
    def w(self) -> str:
        """The path of the workspace."""
        return f"/v1/workspaces/{self.workspace_id}"


class RawReader:
    """Asks with Last-Event-ID, takes every frame apart, and drops its connection at random moments by itself, or is cut
    off by the proxy."""

    def __init__(self, audience: Audience, *, deltas: bool, run_id: str = "") -> None:
        self.last = 0
        self.is_over = False
        self._audience = audience
        self._deltas = deltas
        self._run_id = run_id
        self._texts = Texts()
        self._numbers: list[int] = []
        audience.texts.append((self._texts, run_id if deltas else ""))
        audience.readers += 1

    async def read(self) -> None:
        """Until the run is over; of a workspace, for ever."""
        audience = self._audience
        path = f"{audience.w}/runs/{self._run_id}/events" if self._run_id else f"{audience.w}/events"
        while not self.is_over:
            is_direct = audience.draw.random() < 0.3 and audience.proxy.server_port
            port = audience.proxy.server_port if is_direct else audience.proxy.port
            patience_s = audience.draw.expovariate(1 / 0.3) if is_direct else 60.0
            try:
                with trio.move_on_after(patience_s):
                    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                        headers = {"Host": f"127.0.0.1:{port}", "Last-Event-ID": str(self.last)}
                        connection = Connection(stream, headers)
                        await connection.send("GET", f"{path}?deltas={int(self._deltas)}")
                        answer = await connection.answer()
                        audience.direct += bool(is_direct) and answer.status == 200
                        await self._listen(answer)
            except GONE:
                await trio.sleep(AWAY_S)
        if self._run_id:
            audience.have_read(self._run_id, self._numbers)

    async def _listen(self, answer: Answer) -> None:
        if answer.status == 503:
            raise trio.EndOfChannel
        if answer.status != 200:
            raise Violation(f"a reader was refused: {await answer.read()} (R28)")
        rest = b""
        while data := await answer.receive():
            *frames, rest = (rest + data).split(b"\n\n")
            for frame in frames:
                self._take(frame.lstrip(b"\n"))

    def _take(self, frame: bytes) -> None:
        head, _, rest = frame.partition(b"\n")
        number = int(head[4:]) if head.startswith(b"id: ") else None
        data = (frame if number is None else rest).removeprefix(b"data: ")
        if not data:
            self._take_greeting(number)
            return
        if number is not None:
            self._take_number(number, data)
        event = msgspec.json.decode(data)
        payload: dict[str, Any] = event["payload"]["payload"]
        match event["type"]:
            case "message" if event["payload"]["type"] != "deleted":
                self._texts.take_message(payload)
            case "message_delta":
                self._texts.take_delta(payload)
            case "reset":
                raise Violation(f"a reset, and nothing was pruned: {frame!r} (R28)")
            case "run_complete":
                self.is_over = self.is_over or payload["run_id"] == self._run_id
            case "run" if number is None:  # nothing of it was left to read: the end had been read, all but the end
                raise Violation(f"a run was told as over to a reader of {self.last}: {frame!r} (R28)")

    def _take_greeting(self, number: int | None) -> None:
        if number is not None and number != self.last and self.last:
            raise Violation(f"a reader that had {self.last} goes on after {number} (R28)")

    def _take_number(self, number: int, data: bytes) -> None:
        is_next = number > self.last if self._run_id else number == self.last + 1
        if not is_next:
            raise Violation(f"a reader that had {self.last} was given {number} (R28)")
        self.last = number
        self._numbers.append(number)
        self._audience.ledger.seen(number, data)


class LibraryReader:
    """Reads a workspace with the client library, and is canceled at random moments beside."""

    def __init__(self, audience: Audience, *, deltas: bool) -> None:
        self.last = 0
        self._audience = audience
        self._deltas = deltas
        audience.readers += 1

    async def read(self) -> None:
        """For ever. A stream that is open comes back by itself; only opening it fails at once."""
        audience = self._audience
        while True:
            reading = audience.client.open_events(audience.workspace_id, after=self.last, deltas=self._deltas)
            with suppress(ServerUnreachable):
                async with reading as events:
                    await self._listen(events)
            await trio.sleep(AWAY_S)

    async def _listen(self, events: EventReader) -> None:
        while True:
            with trio.move_on_after(self._audience.draw.expovariate(1 / 0.5)):
                while True:
                    self._take(await anext(events))

    def _take(self, event: ClientEvent) -> None:
        if event.type == "reset":
            raise Violation(f"a reset, and nothing was pruned: {event} (R28)")
        if event.seq is None:
            return
        if event.seq != self.last + 1:
            raise Violation(f"a reader that had {self.last} was given {event.seq} by the library (R28)")
        self.last = event.seq
        self._audience.ledger.seen(event.seq, event.data)


async def follow_run(audience: Audience, run_id: str) -> None:
    """Follow a run with the client library from beginning to end, as `countermand run` does."""
    audience.readers += 1
    texts, numbers = Texts(), list[int]()
    async with audience.client.open_run(audience.workspace_id, run_id) as run:
        while not run.is_over:
            event = await run.next_event()
            if event.seq is not None:
                numbers.append(event.seq)
                audience.ledger.seen(event.seq, event.data)
        async for piece in run:
            if piece.is_restart:
                raise Violation(f"run {run_id} took back what it had said: {piece} (R20)")
            texts.known[piece.message_id] += piece.text
    audience.texts.append((texts, run_id))
    audience.followed += 1
    audience.have_read(run_id, numbers)

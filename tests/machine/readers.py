"""Readers of the event streams: what each was sent, over its disconnections and over the ends of servers."""

from typing import Any

import msgspec
import trio

from tests.doubles.asgi_client import AsgiClient, Stream
from tests.machine.ledger import Ledger


class Leg(msgspec.Struct, kw_only=True, eq=False):
    """One connection of a reader. `after` is the number behind which it begins, once that is known."""

    server: int
    start: str | None
    began: int
    after: int | None = None
    status: int = 0
    events: list[dict[str, Any]] = []
    is_open: bool = True
    has_ended: bool = False  # by the server, as a body should
    scope: trio.CancelScope

    @property
    def numbers(self) -> list[int]:
        """The numbers of its durable events."""
        return [int(event["id"]) for event in self.events if "id" in event]

    @property
    def last(self) -> int | None:
        """The last number that it knows."""
        return max(self.numbers, default=self.after)


class Reader:
    """One client that reads along: the workspace, or one run."""

    def __init__(self, ledger: Ledger, name: str, *, run_id: str | None, deltas: bool) -> None:
        self.name = name
        self.run_id = run_id
        self.legs: list[Leg] = []
        self._ledger = ledger
        self._deltas = deltas

    @property
    def is_attached(self) -> bool:
        """Whether its connection is open."""
        return bool(self.legs) and self.legs[-1].is_open

    @property
    def last(self) -> int | None:
        """The last number that it has seen."""
        return next((leg.last for leg in reversed(self.legs) if leg.last is not None), None)

    def detach(self) -> None:
        """Hang up."""
        self._ledger.tell("reader", self.name, "hangs up")
        self.legs[-1].scope.cancel()

    async def read(self, client: AsgiClient, workspace: str, start: str | None, *, by_header: bool = False) -> None:
        """Connect and read until the stream ends, or somebody hangs up."""
        place = f"{workspace}/runs/{self.run_id}" if self.run_id is not None else workspace
        query = [f"cursor={start}"] if start is not None and not by_header else []
        query += ["deltas=1"] if self._deltas else []
        headers = {"Last-Event-ID": start} if start is not None and by_header else {}
        leg = Leg(server=self._ledger.server, start=start, began=self._ledger.tick(), scope=trio.CancelScope())
        leg.after = int(start) if start is not None and start.isdecimal() else None
        self.legs.append(leg)
        self._ledger.tell("reader", self.name, "connects to", place, *query, headers or "")
        try:
            with leg.scope:
                async with client.stream("GET", f"{place}/events?{'&'.join(query)}", headers=headers) as stream:
                    leg.status = stream.status
                    await self._take_all(stream, leg)
        finally:
            leg.is_open = False

    async def _take_all(self, stream: Stream, leg: Leg) -> None:
        if leg.status != 200:
            problem = msgspec.json.decode(await stream.read())
            self._ledger.tell("reader", self.name, "is refused:", leg.status, problem)
            return
        buffer = b""
        while chunk := await stream.receive_chunk():
            buffer = self._take(buffer + chunk, leg)
        leg.has_ended = stream.has_ended_properly
        self._ledger.tell("reader", self.name, "is at the end" if leg.has_ended else "is cut off")
        if buffer or not leg.has_ended:
            self._ledger.violate(f"the stream of reader {self.name} broke off with {buffer!r}")

    def _take(self, buffer: bytes, leg: Leg) -> bytes:
        """Take the frames that are whole, and return the rest."""
        while buffer:
            if buffer.startswith(b"\n"):  # a blank line, to keep the connection alive
                buffer = buffer[1:]
                continue
            frame, end, rest = buffer.partition(b"\n\n")
            if not end:
                break
            buffer = rest
            lines = dict(line.partition(": ")[::2] for line in frame.decode().splitlines())
            if "data" in lines:
                event = msgspec.json.decode(lines["data"])
                self._look_at({"id": lines["id"], **event} if "id" in lines else event, leg)
            elif leg.after is None:
                leg.after = int(lines["id"])
        return buffer

    def _look_at(self, event: dict[str, Any], leg: Leg) -> None:
        """Keep the event, and look whether it may come now (R27, R28)."""
        if event["type"] == "reset":
            self._ledger.violate(f"reader {self.name} was told to begin anew (R28)")
        if "id" in event and leg.last is not None:
            number, expected = int(event["id"]), leg.last + 1
            if number < expected or (self.run_id is None and number != expected):
                self._ledger.violate(f"reader {self.name} was shown {number}, and was at {leg.last} (R27, R28)")
        leg.events.append(event)
        self._ledger.tick()

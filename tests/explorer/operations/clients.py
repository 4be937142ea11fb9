"""Clients: they read the feed, and their claims keep the workspace open."""

from contextlib import nullcontext
from typing import ClassVar

import trio

from engine.backend import NewWorkspace
from engine.errors import CountermandError, NotFound, ServerStopping, StoreUnavailable, WorkspaceClosing
from engine.events.feed import Feed
from engine.records.ids import ClientId, RunId
from tests.explorer.disk import DIRECTORY
from tests.explorer.draw import Draw
from tests.explorer.operations.prompts import Accept
from tests.explorer.readers import Reader
from tests.explorer.scenario import Operation
from tests.explorer.world import World

CLIENTS = (ClientId("c0"), ClientId("c1"))


class Watch(Operation, frozen=True, kw_only=True):
    """Read the feed beside everything else: from the first event or from now on, all or one run's, and be as slow as
    `lags` says. After every so many receives of `legs` the connection drops, for `away_ms`."""

    feature: ClassVar[str] = "readers"
    weight: ClassVar[float] = 3.0

    name: str
    is_from_start: bool
    run: str | None = None
    client: ClientId | None = None
    lags: tuple[int, ...] = (0,)
    legs: tuple[int, ...] = ()
    away_ms: int = 0

    @classmethod
    def drawn(cls, draw: Draw) -> "Watch":
        earlier = draw.earlier(Accept) if draw.percent(25) else None
        return cls(
            name=draw.choice(("w1", "w2")),
            is_from_start=draw.percent(60),
            run=earlier.name if earlier is not None else None,
            client=draw.of("clients", (*CLIENTS, None)),
            lags=draw.lags(),
            legs=tuple(draw.number(1, 4) for _ in range(draw.choice((0, 0, 1, 2)))),
            away_ms=draw.choice((0, 0, 10, 200, 11_000)),
        )

    async def do(self, world: World) -> None:
        await trio.lowlevel.checkpoint()
        run_id = None if self.run is None else world.ledger.run_id(self.run)
        reader = world.readers.get(self.name)
        if reader is None:
            after = 0 if self.is_from_start else None
            reader = world.readers[self.name] = Reader(world.ledger, self.name, after=after, run_id=run_id)
        if not reader.is_reading:
            reader.is_reading = True
            world.start(self._read, world, reader)

    async def _read(self, world: World, reader: Reader) -> None:
        """Read until the workspace ends. A broken connection is made again."""
        try:
            for leg in (*self.legs, None):
                workspace = world.workspace()
                if workspace is None:
                    break
                try:
                    with workspace.attach(self.client) if self.client is not None else nullcontext():
                        async with workspace.open_feed(
                            after=reader.last, run_id=None if reader.run_id is None else RunId(reader.run_id)
                        ) as feed:
                            await self._read_leg(world, reader, feed, leg)
                except (WorkspaceClosing, ServerStopping, NotFound, StoreUnavailable) as error:
                    world.tell("reader", reader.name, repr(error))
                await trio.sleep(self.away_ms / 1000)
        except trio.EndOfChannel:
            world.tell("reader", reader.name, "is at the end")
        finally:
            reader.is_reading = False
            world.progress()

    async def _read_leg(self, world: World, reader: Reader, feed: Feed, leg: int | None) -> None:
        reader.begin()
        world.tell("reader", reader.name, "connects after", reader.last)
        taken = 0
        while leg is None or taken < leg:
            await reader.take(feed)
            world.progress()
            for _ in range(self.lags[taken % len(self.lags)]):
                await trio.lowlevel.checkpoint()
            taken += 1


class Open(Operation, frozen=True, kw_only=True):
    """A client opens the workspace, which it may find open, closed, or closing."""

    feature: ClassVar[str] = "clients"
    weight: ClassVar[float] = 3.0

    client: ClientId

    @classmethod
    def drawn(cls, draw: Draw) -> "Open":
        return cls(client=draw.choice(CLIENTS))

    async def do(self, world: World) -> None:
        backend = world.backend
        if backend is not None:
            world.tell("open", self.client)
            try:
                await backend.create_workspace(NewWorkspace(path=DIRECTORY, client_id=self.client))
            except CountermandError as error:
                world.expect(error, ServerStopping, StoreUnavailable)
                world.tell("not opened", repr(error))


class Release(Operation, frozen=True, kw_only=True):
    """A client gives up its claim."""

    feature: ClassVar[str] = "clients"
    weight: ClassVar[float] = 2.0

    client: ClientId

    @classmethod
    def drawn(cls, draw: Draw) -> "Release":
        return cls(client=draw.choice(CLIENTS))

    async def do(self, world: World) -> None:
        if world.backend is not None:
            world.tell("release", self.client)
            await world.backend.release("w", self.client)

"""How many prompts can be accepted durably, and how soon is a canceled run over?

A real server with its store on disk. Every slot for an active run is taken by one that hangs, so that what is accepted
waits, and accepting alone is measured: the decoding, the row and its event in one durable transaction, the answer. In
the same round the same clients ask for `GET /v1/health`, which touches no store: the ratio is what durability costs.
Runs that hang are canceled one by one, while nothing else happens and while clients send prompts.
"""

import argparse
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it can be run as a script, too

from bench import harness
from tests.doubles.live_server import Connection, LiveServer, open_live_server

HANGS = '```script\n[[{"text": "begun"}, {"hang": true}]]\n```'
MODEL = "offline/script"
SLOTS = 64  # active runs of a server; as many sessions hold one each
QUEUE = 90  # prompts behind the first of a session; a server takes a hundred
SESSIONS = 10  # with prompts, of one workspace; a server lets a thousand wait in each
LOAD_CLIENTS = 16  # that send prompts while runs are canceled


@dataclass
class Place:
    """Where the next prompt goes: workspaces are made, and filled, one after the other."""

    server: LiveServer
    directory: Path
    sessions: list[tuple[str, str]] = field(default_factory=list)  # with room, each once for each place in its queue
    made: int = 0

    async def make_room(self, connection: Connection, count: int) -> None:
        """Have so many places. Nothing is measured meanwhile."""
        await trio.lowlevel.checkpoint()
        while len(self.sessions) < count:
            self.made += 1
            project = self.directory / str(self.made)
            await trio.Path(project).mkdir()
            w = f"/v1/workspaces/{(await ask(connection, 'POST', '/v1/workspaces', {'path': str(project)}))['id']}"
            for _ in range(SESSIONS):
                session = await ask(connection, "POST", f"{w}/sessions", {"title": "accepting"})
                self.sessions += [(w, session["id"])] * QUEUE

    def take(self) -> tuple[str, str]:
        """A workspace and a session with room for a prompt."""
        return self.sessions.pop()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64], help="at a time, in each round")
    parser.add_argument("--prompts", type=int, default=1500, help="in each round")
    parser.add_argument(
        "--cancels", type=int, default=100, help="while nothing else happens; under load, at most one a slot"
    )


async def measure(options: argparse.Namespace, report: harness.Report) -> None:
    """Measure accepting, then canceling."""
    rates = report.table("Accepted prompts", "clients", "a second", "p50 ms", "p99 ms", "health a second",
                         "p50 ms", "p99 ms", "ratio")  # fmt: skip
    times = report.table("From sending a cancel, in ms", "while", "to", "p50", "p99", "max")
    with tempfile.TemporaryDirectory() as directory:
        arguments = ("--no-token", "--log-level", "warning")
        async with (
            open_live_server(Path(directory, "data"), arguments=arguments) as server,
            server.connect() as connection,
        ):
            place = Place(server, Path(directory))
            hanging = await fill_slots(connection, Path(directory, "hanging"), options.cancels)
            await cancel_runs(server, hanging, options.cancels, "nothing else happens", times)
            for clients in options.clients:
                await place.make_room(connection, options.prompts)
                health = await load(server, clients, options.prompts, ask_health)
                accepted = await load(server, clients, options.prompts, lambda each: send_prompt(each, place))
                rates.add(
                    clients, round(accepted.rate), *accepted.spread, round(health.rate), *health.spread,
                    harness.ratio(accepted.rate, health.rate),
                )  # fmt: skip
            async with trio.open_nursery() as nursery:
                await place.make_room(connection, QUEUE * SESSIONS)
                nursery.start_soon(
                    load, server, LOAD_CLIENTS, len(place.sessions), lambda each: send_prompt(each, place)
                )
                # What was accepted takes the slots that this frees: each can be freed once.
                await cancel_runs(
                    server, hanging, min(options.cancels, SLOTS - 1), f"{LOAD_CLIENTS} clients send prompts", times
                )
                nursery.cancel_scope.cancel()


@dataclass
class Load:
    """How long each request took, and all of them."""

    seconds: list[float] = field(default_factory=list)
    took: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.seconds) / self.took

    @property
    def spread(self) -> tuple[float, float]:
        """p50 and p99, in milliseconds."""
        return harness.spread(self.seconds)[:2]


async def load(server: LiveServer, clients: int, count: int, one: Callable[[Connection], Awaitable[None]]) -> Load:
    """So many requests, by so many clients that each have a connection and wait for each answer."""
    found = Load()
    numbers = iter(range(count))

    async def work(connection: Connection) -> None:
        for _ in numbers:
            began = trio.current_time()
            await one(connection)
            found.seconds.append(trio.current_time() - began)
        await trio.lowlevel.checkpoint()

    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(server.connect()) for _ in range(clients)]
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for connection in connections:
                nursery.start_soon(work, connection)
        found.took = trio.current_time() - began
    return found


async def ask_health(connection: Connection) -> None:
    """A request that touches no store."""
    answer = await connection.request("GET", "/v1/health")
    assert answer.status == 200, answer


async def send_prompt(connection: Connection, place: Place) -> None:
    """A prompt that is accepted and waits."""
    w, session_id = place.take()
    answer = await connection.request(
        "POST", f"{w}/agent", {"session_id": session_id, "prompt": HANGS, "model": MODEL, "if_busy": "enqueue"}
    )
    assert answer.status == 202, answer


async def fill_slots(connection: Connection, project: Path, cancels: int) -> "Hanging":
    """Take every slot with a run that hangs, and have enough behind them to be canceled one after the other."""
    await trio.Path(project).mkdir()
    w = f"/v1/workspaces/{(await ask(connection, 'POST', '/v1/workspaces', {'path': str(project)}))['id']}"
    runs = []
    for _ in range(SLOTS):
        session_id = (await ask(connection, "POST", f"{w}/sessions", {"title": "hanging"}))["id"]
        for _ in range(2 + cancels // SLOTS):
            body = {"session_id": session_id, "prompt": HANGS, "model": MODEL, "if_busy": "enqueue"}
            runs.append((await ask(connection, "POST", f"{w}/agent", body))["run_id"])
    hanging = Hanging(w)
    await hanging.wait_active(connection, SLOTS)
    return hanging


@dataclass
class Hanging:
    """Runs that hang, on every slot of the server."""

    w: str

    async def wait_active(self, connection: Connection, count: int) -> list[str]:
        """The ids of the active ones, once there are so many."""
        while True:
            runs = (await ask(connection, "GET", f"{self.w}/runs?state=active&limit=200"))["runs"]
            if len(runs) >= count:
                return [run["id"] for run in runs]


async def cancel_runs(server: LiveServer, hanging: Hanging, count: int, when: str, times: harness.Table) -> None:
    """Cancel active runs one by one, and note when each was answered and when its end was told."""
    answered, ended = [], []
    async with server.connect() as connection, open_endings(server, hanging.w) as endings:
        for _ in range(count):
            run_id = (await hanging.wait_active(connection, 1))[0]
            began = trio.current_time()
            answer = await ask(connection, "POST", f"{hanging.w}/runs/{run_id}/cancel")
            answered.append(trio.current_time() - began)
            assert answer["canceled"] == [run_id], answer
            at, name = await endings.receive()
            assert name == run_id, (name, run_id)
            ended.append(at - began)
    times.add(when, "its answer", *harness.spread(answered))
    times.add(when, "the terminal event", *harness.spread(ended))


@asynccontextmanager
async def open_endings(server: LiveServer, w: str) -> AsyncIterator[trio.MemoryReceiveChannel[tuple[float, str]]]:
    """When each terminal event of a workspace arrives, and of which run it is."""
    send, receive = trio.open_memory_channel[tuple[float, str]](1000)
    async with server.connect() as connection, trio.open_nursery() as nursery:
        await connection.send("GET", f"{w}/events?deltas=1")
        answer = await connection.answer()

        async def read() -> None:
            rest = b""
            while data := await answer.receive():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.startswith(b'data: {"type":"run_complete"'):
                        ending = msgspec.json.decode(line[6:])["payload"]["payload"]
                        send.send_nowait((trio.current_time(), ending["run_id"]))

        nursery.start_soon(read)
        yield receive
        nursery.cancel_scope.cancel()


async def ask(connection: Connection, method: str, target: str, body: object = None) -> Any:
    """A request that must be answered well; its answer's body."""
    answer = await connection.request(method, target, body)
    if answer.status not in (200, 202):
        raise RuntimeError(f"{method} {target}: {answer}")
    return answer.json()


if __name__ == "__main__":
    harness.run_script(__name__)

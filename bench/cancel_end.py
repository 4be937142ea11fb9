"""How soon after the answer of a cancel is the run over, by what it was doing?

A real server, and the offline model. A run streams words, waits for a permission, or has a command in `bash`: one that
sleeps, one that ignores SIGTERM, one whose child has forked twice to get away. Each is canceled when it is there, over
HTTP, while a reader waits for its terminal event. Before each cancel the same connection asks for `GET /v1/health`: the
ratios are to that round trip. A command and its children must be gone when the terminal event is there (R10).
"""

import argparse
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it can be run as a script, too

from bench import harness
from tests.doubles.live_server import Connection, LiveServer, open_live_server

MODEL = "offline/script"
SOON_S = 60.0  # by then a run is where it is canceled, and has ended after that
LOOK_S = 0.005  # between two looks for what a command has written
SETTLED_S = 0.05  # after a command has begun: its start is not what is measured
COMMANDS = {
    "bash: sleeps": "echo $$ > {pids}; exec sleep 600",
    "bash: ignores SIGTERM": "trap '' TERM; echo $$ > {pids}; while :; do sleep 600; done",
    "bash: has forked twice": "(setsid bash -c 'echo $$ > {pids}; exec sleep 600' &); sleep 600",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--cancels", type=int, default=100, help="of each kind")


@dataclass
class Kind:
    """What a run does, and how long what took, in seconds."""

    name: str
    script: Callable[[Path], list[Any]]  # given the file for the ids of its processes
    is_there: Callable[["Reader", str, Path], bool]
    health: list[float] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    over: list[float] = field(default_factory=list)  # since the answer
    alive: list[int] = field(default_factory=list)  # processes that are still there then


@dataclass
class Reader:
    """What a reader of the event stream has seen so far."""

    ended: dict[str, tuple[float, str]] = field(default_factory=dict)  # by run: when, and in which state
    spoken: set[str] = field(default_factory=set)  # sessions whose message has grown
    asked: set[str] = field(default_factory=set)  # sessions that wait for a permission
    bell: harness.Bell = field(default_factory=harness.Bell)
    _sessions: dict[str, str] = field(default_factory=dict)  # by message

    def note(self, line: bytes) -> None:
        """One event."""
        at = trio.current_time()
        event = msgspec.json.decode(line)
        payload = event["payload"]["payload"]
        match event["type"]:
            case "run_complete":
                self.ended[payload["run_id"]] = (at, payload["state"])
            case "message_delta":
                self.spoken.add(self._sessions.get(payload["message_id"], ""))
            case "message":
                self._sessions[payload["id"]] = payload["session_id"]
            case "permission_request":
                self.asked.add(payload["session_id"])
        self.bell.ring()


def kinds() -> list[Kind]:
    """All of them."""
    touch = {"description": "make a file", "command": "touch made"}
    found = [
        Kind(
            "streams",
            lambda pids: [{"text": "word ", "repeat": 100_000, "every": 0.01}],
            lambda reader, session_id, pids: session_id in reader.spoken,
        ),
        Kind(
            "waits for a permission",
            lambda pids: [{"tool": "bash", "input": touch}],
            lambda reader, session_id, pids: session_id in reader.asked,
        ),
    ]
    return found + [
        Kind(name, _script_of(command), lambda _, __, pids: pids.exists()) for name, command in COMMANDS.items()
    ]


def _script_of(command: str) -> Callable[[Path], list[Any]]:
    def script(pids: Path) -> list[Any]:
        return [{"tool": "bash", "input": {"description": "wait", "command": command.format(pids=pids)}}]

    return script


async def measure(options: argparse.Namespace, report: harness.Report) -> None:
    """Cancel runs of each kind, one after the other."""
    times = report.table("Canceling, in ms", "a run that", "health p50", "p99", "to the answer p50", "p99", "ratio",
                         "then to its end p50", "p99", "ratio")  # fmt: skip
    found = kinds()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        arguments = ("--no-token", "--log-level", "warning")
        async with (
            open_live_server(directory / "data", arguments=arguments) as server,
            server.connect() as connection,
        ):
            asking = await open_project(connection, directory / "asking")
            trusting = await open_project(connection, directory / "trusting")
            await ask(connection, "POST", f"{trusting}/permissions/skip", {"skip": True})
            for kind in found:
                w = trusting if kind.name in COMMANDS else asking
                async with open_reader(server, w) as reader:
                    for number in range(options.cancels + 1):
                        await cancel_one(connection, w, reader, kind, directory / f"{len(kind.name)}-{number}")
            report.check("the server has nothing to complain of", not server.log, server.log[:500])
    for kind in found:
        health, answered, over = (each[1:] for each in (kind.health, kind.answered, kind.over))  # the first warms up
        round_trip = harness.percentile(health, 0.5)
        times.add(
            kind.name, *harness.spread(health)[:2],
            *harness.spread(answered)[:2], harness.ratio(harness.percentile(answered, 0.5), round_trip),
            *harness.spread(over)[:2], harness.ratio(harness.percentile(over, 0.5), round_trip),
        )  # fmt: skip
        if kind.name in COMMANDS:
            report.check_none(f"{kind.name}: processes that outlived their run", kind.alive)


async def open_project(connection: Connection, project: Path) -> str:
    """The path of a new workspace."""
    await trio.Path(project).mkdir()
    return f"/v1/workspaces/{(await ask(connection, 'POST', '/v1/workspaces', {'path': str(project)}))['id']}"


async def cancel_one(connection: Connection, w: str, reader: Reader, kind: Kind, pids: Path) -> None:
    """Bring a run to where it is canceled, and cancel it."""
    session_id = (await ask(connection, "POST", f"{w}/sessions", {"title": kind.name}))["id"]
    script = msgspec.json.encode([kind.script(pids)]).decode()
    body = {"session_id": session_id, "prompt": f"```script\n{script}\n```", "model": MODEL, "if_busy": "enqueue"}
    run_id = (await ask(connection, "POST", f"{w}/agent", body))["run_id"]
    with trio.fail_after(SOON_S):
        while not kind.is_there(reader, session_id, pids):  # noqa: ASYNC110
            await trio.sleep(LOOK_S)  # a file has no bell
    await trio.sleep(SETTLED_S)
    began = trio.current_time()
    await ask(connection, "GET", "/v1/health")
    kind.health.append(trio.current_time() - began)
    began = trio.current_time()
    answer = await ask(connection, "POST", f"{w}/runs/{run_id}/cancel")
    answered_at = trio.current_time()
    assert answer["canceled"] == [run_id], answer
    kind.answered.append(answered_at - began)
    assert await reader.bell.wait_until(lambda: run_id in reader.ended, SOON_S), f"{run_id} has not ended"
    kind.alive += filter(is_alive, ids_in(pids))
    at, state = reader.ended[run_id]
    assert state == "canceled", (run_id, state)
    # It may be read a moment before the answer: they come on two connections.
    kind.over.append(max(at - answered_at, 0.0))


def ids_in(pids: Path) -> list[int]:
    """The processes whose ids were written there."""
    return [int(pid) for pid in pids.read_text("ascii").split()] if pids.exists() else []


def is_alive(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def open_reader(server: LiveServer, w: str) -> AsyncIterator[Reader]:
    """A reader of the workspace's events, from now on."""
    reader = Reader()
    async with server.connect() as connection, trio.open_nursery() as nursery:
        await connection.send("GET", f"{w}/events?deltas=1")
        answer = await connection.answer()

        async def read() -> None:
            rest = b""
            while data := await answer.receive():
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if line.startswith(b"data: "):
                        reader.note(line[6:])

        nursery.start_soon(read)
        yield reader
        nursery.cancel_scope.cancel()


async def ask(connection: Connection, method: str, target: str, body: object = None) -> Any:
    """A request that must be answered well; its answer's body."""
    answer = await connection.request(method, target, body)
    if answer.status not in (200, 202):
        raise RuntimeError(f"{method} {target}: {answer}")
    return answer.json() if answer.body else None


if __name__ == "__main__":
    harness.run_script(__name__)

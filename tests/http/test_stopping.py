"""A real `countermand serve` that is stopped, hurried or killed, and the next one over the same store."""

import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
import trio

from tests.doubles.live_server import Answer, Connection, LiveServer, open_live_server
from tests.doubles.openai_server import HANG, answer, open_openai_server, say, stop
from tests.http.service import finish_of, payload, text_of

pytestmark = pytest.mark.slow

TEST_S = 120.0
# How long a server may take to leave, whoever does not read. On a machine that does nothing else it is three seconds at
# most, which bench/fanout.py holds it to; a stalled reader that holds it up does so for the twenty of its patience.
LEAVE_S = 12.0
HANGS = '```script\n[[{"text": "begun"}, {"hang": true}]]\n```'
FULL = 1000  # bytes of receive buffer of a reader that stalls
TERMINAL = {"completed", "canceled", "failed", "interrupted"}


def lasts(seconds: float) -> str:
    """A prompt for a run that says a word, and another one after a while."""
    return f'```script\n[[{{"text": "begun"}}, {{"wait": {seconds}}}, {{"text": ", done"}}]]\n```'


class Caller:
    """Somebody with a connection to a server, a workspace on it and a session there."""

    def __init__(self, server: LiveServer, connection: Connection) -> None:
        self.server = server
        self.connection = connection
        self.w = ""
        self.session_id = ""

    async def begin(self, project: Path) -> Self:
        """Open the workspace and a session."""
        self.w = f"/v1/workspaces/{(await self.ok('POST', '/v1/workspaces', {'path': str(project)}))['id']}"
        self.session_id = (await self.ok("POST", f"{self.w}/sessions", {"title": "a session"}))["id"]
        return self

    async def ok(self, method: str, target: str, body: Any = None) -> Any:
        """A request that must be answered well; its answer's body."""
        found = await self.connection.request(method, target, body)
        assert 200 <= found.status < 300, (method, target, found)
        return found.json() if found.body else None

    async def send(self, run_id: str, prompt: str = "hi", **more: Any) -> dict[str, Any]:
        """Send a prompt to the session."""
        body = {"session_id": self.session_id, "prompt": prompt, "run_id": run_id, "model": "offline/script", **more}
        sent: dict[str, Any] = await self.ok("POST", f"{self.w}/agent", body)
        return sent

    async def run(self, run_id: str, *, ended: bool = False) -> dict[str, Any]:
        """A run, as it is or once it has ended."""
        found: dict[str, Any] = await self.ok("GET", f"{self.w}/runs/{run_id}" + ("?wait_s=60" if ended else ""))
        assert not ended or found["state"] in TERMINAL, found
        return found

    async def begun(self, run_id: str) -> None:
        """Return once the run has said its first word. Whatever is accepted after that is stored behind it."""
        async with self.server.connect() as connection:
            await connection.send("GET", f"{self.w}/runs/{run_id}/events?deltas=1")
            events = Events(await connection.answer())
            while True:
                event = await events.next_event()
                said = payload(event)
                if event["type"].startswith("message") and "begun" in assistant_text(said):
                    return

    async def turns(self) -> list[tuple[str, str, str]]:
        """Role, text and finish of each stored message of the session."""
        messages = await self.ok("GET", f"{self.w}/sessions/{self.session_id}/messages")
        return [(message["role"], text_of(message), finish_of(message)) for message in messages]

    async def check_endings(self, *run_ids: str) -> None:
        """Each of these runs has exactly one terminal event in the log, which has no gap; and there is no other."""
        async with self.server.connect() as connection:
            await connection.send("GET", f"{self.w}/events?cursor=earliest")
            events = Events(await connection.answer())
            while set(events.endings) != set(run_ids):
                await events.next_event()
        assert events.endings == dict.fromkeys(run_ids, 1)
        assert events.numbers == list(range(1, len(events.numbers) + 1))


class Events:
    """An event stream."""

    def __init__(self, stream: Answer) -> None:
        self.stream = stream
        self.numbers: list[int] = []
        self.endings: Counter[str] = Counter()
        self._rest = b""
        self._frames: list[bytes] = []

    async def next_event(self) -> dict[str, Any]:
        """The next event. Raises EndOfChannel at the end."""
        while True:
            while not self._frames:
                data = await self.stream.receive()
                if not data:
                    raise trio.EndOfChannel
                *self._frames, self._rest = (self._rest + data).split(b"\n\n")
            lines = dict(line.split(b": ", 1) for line in self._frames.pop(0).splitlines() if line)
            if b"data" in lines:
                break
        event: dict[str, Any] = msgspec.json.decode(lines[b"data"])
        if b"id" in lines:
            self.numbers.append(int(lines[b"id"]))
        if event["type"] == "run_complete":
            self.endings[payload(event)["run_id"]] += 1
        return event

    async def read_to_end(self) -> None:
        """Everything that is left; the stream must end as a body should."""
        try:
            while True:
                await self.next_event()
        except trio.EndOfChannel:
            assert self.stream.has_ended_properly


def assistant_text(message: dict[str, Any]) -> str:
    """What a message says, if it is an answer."""
    if "parts" not in message:
        return str(message["text"])  # a delta: of an answer, since a prompt does not grow
    return text_of(message) if message["role"] == "assistant" else ""


@asynccontextmanager
async def open_caller(server: LiveServer, project: Path) -> AsyncIterator[Caller]:
    """A caller with a workspace and a session of its own."""
    async with server.connect() as connection:
        yield await Caller(server, connection).begin(project)


@asynccontextmanager
async def open_successor(server: LiveServer, earlier: Caller) -> AsyncIterator[Caller]:
    """The same caller, at the next server. It opens nothing: what is unfinished is taken up without being asked."""
    async with server.connect() as connection:
        caller = Caller(server, connection)
        caller.w, caller.session_id = earlier.w, earlier.session_id
        yield caller


async def left(server: LiveServer, within_s: float = LEAVE_S) -> None:
    """Wait until the server has left, in order."""
    with trio.fail_after(within_s):
        assert await server.process.wait() == 0, server.log


# R24: a signal


async def test_r24_what_is_active_finishes_and_what_waits_runs_after_the_next_start(tmp_path: Path) -> None:
    with trio.fail_after(TEST_S):
        async with open_live_server(tmp_path / "data") as server, open_caller(server, tmp_path) as caller:
            await caller.send("active", lasts(1))
            await caller.begun("active")
            await caller.send("queued", lasts(0))
            server.process.send_signal(signal.SIGTERM)
            await left(server)
        async with open_live_server(tmp_path / "data") as server, open_successor(server, caller) as caller:
            assert (await caller.run("active"))["state"] == "completed"
            queued = await caller.run("queued", ended=True)
            assert (queued["state"], queued["attempt"]) == ("completed", 1)
            assert await caller.turns() == [
                ("user", lasts(1), "stop"), ("assistant", "begun, done", "end_turn"),
                ("user", lasts(0), "stop"), ("assistant", "begun, done", "end_turn"),
            ]  # fmt: skip
            await caller.check_endings("active", "queued")


async def test_r24_what_does_not_finish_in_time_is_canceled(tmp_path: Path) -> None:
    with trio.fail_after(TEST_S):
        arguments = ("--no-token", "--drain", "0.2")
        async with (
            open_live_server(tmp_path / "data", arguments=arguments) as server,
            open_caller(server, tmp_path) as caller,
        ):
            await caller.send("active", HANGS)
            await caller.begun("active")
            server.process.send_signal(signal.SIGINT)
            await left(server)
        async with open_live_server(tmp_path / "data") as server, open_successor(server, caller) as caller:
            await caller.begin(tmp_path)  # nothing is unfinished, and it was kept: it may be open, or not
            assert (await caller.run("active"))["state"] == "canceled"
            await caller.check_endings("active")


async def test_r24_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with trio.fail_after(TEST_S):
        arguments = ("--no-token", "--drain", "3600")
        async with (
            open_live_server(tmp_path / "data", arguments=arguments) as server,
            open_caller(server, tmp_path) as caller,
            server.connect() as connection,
        ):
            await caller.send("active", HANGS)
            await caller.begun("active")
            await caller.send("queued", lasts(0))
            await connection.send("GET", f"{caller.w}/events?cursor=latest")
            events = Events(await connection.answer())
            server.process.send_signal(signal.SIGTERM)
            while (await server.ask("GET", "/v1/ready")).status != 503:
                pass
            assert server.process.poll() is None, "it waits for what is active"
            server.process.send_signal(signal.SIGTERM)
            await events.read_to_end()
            assert events.endings == {"active": 1}
            await left(server)
        async with open_live_server(tmp_path / "data") as server, open_successor(server, caller) as caller:
            assert (await caller.run("active"))["state"] == "canceled"
            assert (await caller.run("queued", ended=True))["state"] == "completed"
            assert (await caller.turns())[1] == ("assistant", "begun", "canceled")
            await caller.check_endings("active", "queued")


async def test_r04_a_server_that_drains_refuses_prompts_and_answers_everything_else(tmp_path: Path) -> None:
    with trio.fail_after(TEST_S):
        arguments = ("--no-token", "--drain", "3600")
        async with (
            open_live_server(tmp_path / "data", arguments=arguments) as server,
            open_caller(server, tmp_path) as caller,
        ):
            await caller.send("active", HANGS)
            await caller.begun("active")
            server.process.send_signal(signal.SIGTERM)
            while (await server.ask("GET", "/v1/ready")).status != 503:
                pass
            body = {"session_id": caller.session_id, "prompt": "too late", "run_id": "late"}
            refused = await caller.connection.request("POST", f"{caller.w}/agent", body)
            assert (refused.status, refused.json()["type"]) == (503, "server_stopping")
            assert (await server.ask("GET", "/v1/health")).status == 200
            assert (await caller.run("active"))["state"] == "active"
            assert (await caller.ok("POST", f"{caller.w}/runs/active/cancel"))["canceled"] == ["active"]
            await left(server)


async def test_the_shutdown_is_not_held_up_by_a_reader_that_stalls_nor_by_one_that_idles(tmp_path: Path) -> None:
    with trio.fail_after(TEST_S):
        async with open_live_server(tmp_path / "data") as server, open_caller(server, tmp_path) as caller:
            # Long enough a log that it does not fit into the buffers of the reader's socket and of the server's.
            for number in range(8):
                await caller.send(f"r{number}", "x" * 900_000)
            await caller.run("r7", ended=True)
            with socket.socket() as stalled:
                stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, FULL)
                stalled.connect(("127.0.0.1", server.port))
                stalled.sendall(f"GET {caller.w}/events?cursor=earliest HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
                async with server.connect() as connection, server.connect():
                    await connection.send("GET", f"{caller.w}/events?cursor=latest")
                    reader = await connection.answer()
                    server.process.terminate()
                    while await reader.receive():
                        pass
                    assert reader.has_ended_properly, "who reads gets a proper end"
                    await left(server)


# R25: a crash


async def test_r25_after_a_kill_every_run_has_exactly_one_ending(tmp_path: Path) -> None:
    """Active, queued behind it, to be retried, canceled a moment before, and accepted a moment before."""
    async with open_openai_server() as openai:
        openai.default = answer(say("begun"), HANG)
        environ = {"COUNTERMAND_MODEL": "openai/scripted", "OPENAI_BASE_URL": openai.base_url, "OPENAI_API_KEY": "k"}
        model = {"model": "openai/scripted"}
        with trio.fail_after(TEST_S):
            async with (
                open_live_server(tmp_path / "data", environ=environ) as server,
                open_caller(server, tmp_path) as caller,
            ):
                first = caller.session_id
                await caller.send("active", **model)
                await caller.begun("active")
                await caller.send("queued", **model)
                caller.session_id = (await caller.ok("POST", f"{caller.w}/sessions", {"title": "two"}))["id"]
                await caller.send("retried", on_crash="retry", **model)
                await caller.begun("retried")
                caller.session_id = (await caller.ok("POST", f"{caller.w}/sessions", {"title": "three"}))["id"]
                await caller.send("canceled", **model)
                third, caller.session_id = caller.session_id, first
                for number in range(5):
                    await caller.send(f"accepted-{number}", **model)
                named = await caller.ok("POST", f"{caller.w}/runs/canceled/cancel")
                assert named["canceled"] == ["canceled"]
                server.process.send_signal(signal.SIGKILL)
                await server.process.wait()
            openai.default = answer(say("Now it works."), stop())
            async with (
                open_live_server(tmp_path / "data", environ=environ) as server,
                open_successor(server, caller) as caller,
            ):
                accepted = [f"accepted-{number}" for number in range(5)]
                runs = {
                    name: await caller.run(name, ended=True)
                    for name in ("active", "queued", "retried", "canceled", *accepted)
                }
                assert {name: run["state"] for name, run in runs.items()} == {
                    "active": "interrupted", "queued": "completed", "retried": "completed", "canceled": "canceled",
                    **dict.fromkeys(accepted, "completed"),
                }  # fmt: skip
                assert [runs[name]["attempt"] for name in ("active", "queued", "retried")] == [1, 1, 2]
                assert runs["active"]["error"]["title"]
                await caller.check_endings(*runs)
                caller.session_id = third
                again = await caller.send("canceled", **model)
                assert (again["state"], again["seq"]) == ("canceled", runs["canceled"]["seq"]), "R06, over a restart"
                caller.session_id = first
                assert (await caller.turns())[:4] == [
                    ("user", "hi", "stop"), ("assistant", "begun", "error"),
                    ("user", "hi", "stop"), ("assistant", "Now it works.", "end_turn"),
                ]  # fmt: skip


async def test_r28_a_reader_goes_on_at_the_next_server_where_it_was_at_the_last(tmp_path: Path) -> None:
    with trio.fail_after(TEST_S):
        async with (
            open_live_server(tmp_path / "data") as server,
            open_caller(server, tmp_path) as caller,
            server.connect() as connection,
        ):
            await connection.send("GET", f"{caller.w}/events?cursor=earliest")
            before = Events(await connection.answer())
            await caller.send("r1", lasts(0))
            await caller.send("r2", HANGS)
            while not before.endings:
                await before.next_event()
            await caller.begun("r2")
            server.process.kill()
            await server.process.wait()
            with suppress(trio.EndOfChannel):
                while True:
                    await before.next_event()
            assert not before.stream.has_ended_properly
        async with (
            open_live_server(tmp_path / "data") as server,
            open_successor(server, caller) as caller,
            server.connect() as connection,
        ):
            last = {"Last-Event-ID": str(before.numbers[-1])}
            await connection.send("GET", f"{caller.w}/events?cursor=earliest", headers=last)
            after = Events(await connection.answer())
            while not after.endings:
                await after.next_event()
            numbers = [*before.numbers, *after.numbers]
            assert numbers == list(range(1, len(numbers) + 1))
            assert (before.endings, after.endings) == ({"r1": 1}, {"r2": 1})

"""Does one subscriber that does not read delay the others, grow the server, or hold up its end?

A real server, and many subscribers of the event stream of one workspace on sockets of their own. What they are told of
is a session that is renamed now and then, to the moment at which that was asked for. This is measured without, with and
again without one more subscriber, which asks for the whole log and reads none of it. At the end the server gets a
SIGTERM with all of them connected.
"""

import argparse
import resource
import selectors
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it can be run as a script, too

from bench import harness
from bench.server_process import cpu_seconds, resident_mb
from tests.doubles.live_server import Connection, LiveServer, open_live_server

SPARE_DESCRIPTORS = 256
SHUTDOWN_S = 3.0
SLOWER_AT_MOST = 2.0  # times the p50 without the stalled one; noise is a good part of it
GROWTH_MB = 48.0  # that one stalled subscriber may cost: a page of the log, its frames, and the socket
PROMPT_BYTES = 50_000  # of each prompt that fills the log for the stalled one
RECEIVE_BYTES = 4096  # of the stalled one's buffer
MARK = b'"title":"at '
CHUNK = 1 << 16


class Subscribers:
    """Sockets with an event stream each, read by a thread of their own, which notes how long each event took."""

    def __init__(self, port: int, target: str) -> None:
        self._port = port
        self._target = target
        self._selector = selectors.EpollSelector()
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self.latencies: list[float] = []  # seconds, one for each event and subscriber
        self.ended = 0

    def add(self, count: int) -> None:
        """Connect so many, and wait until each has its 200."""
        for _ in range(count):
            subscriber = subscribe(self._port, self._target)
            head = b""
            while b"\r\n\r\n" not in head:
                head += subscriber.recv(CHUNK)
            assert head.startswith(b"HTTP/1.1 200"), head
            subscriber.setblocking(False)
            self._selector.register(subscriber, selectors.EVENT_READ)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """Stop reading, and close them all."""
        self._is_over.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def take(self) -> list[float]:
        """What was noted since the last time."""
        taken, self.latencies = self.latencies, []
        return taken

    def _read(self) -> None:
        while not self._is_over.is_set():
            for key, _ in self._selector.select(timeout=0.1):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    data = key.fileobj.recv(CHUNK)
                except ConnectionResetError:
                    data = b""
                now = time.monotonic_ns()
                if not data:
                    self._selector.unregister(key.fileobj)
                    self.ended += 1
                at = data.find(MARK)
                while at >= 0:
                    begin = at + len(MARK)
                    self.latencies.append((now - int(data[begin : data.index(b'"', begin)])) / 1e9)
                    at = data.find(MARK, begin)


def subscribe(port: int, target: str, receive_bytes: int | None = None) -> socket.socket:
    """A socket on which an event stream was asked for."""
    subscriber = socket.socket()
    if receive_bytes is not None:
        subscriber.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    subscriber.connect(("127.0.0.1", port))
    subscriber.sendall(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    return subscriber


@contextmanager
def stalled(port: int, target: str) -> Iterator[socket.socket]:
    """A subscriber that asks for everything and reads nothing."""
    with subscribe(port, target, RECEIVE_BYTES) as subscriber:
        yield subscriber


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--subscribers", type=int, default=1000, help="that read")
    parser.add_argument("--rate", type=float, default=2.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each round; a stalled one is cut off after 20")


async def measure(options: argparse.Namespace, report: harness.Report) -> None:
    """Measure the rounds, then the end."""
    allow_descriptors(options.subscribers + SPARE_DESCRIPTORS)
    times = report.table("From asking to each subscriber's knowing, in ms", "round", "deliveries", "p50", "p99", "max",
                         "server CPU, µs each", "p50, ratio to the first")  # fmt: skip
    sizes = report.table("The server's memory, in MB", "when", "resident", "more than before")
    with tempfile.TemporaryDirectory() as directory:
        arguments = ("--no-token", "--log-level", "warning")
        async with (
            open_live_server(Path(directory, "data"), arguments=arguments) as server,
            open_publisher(server, directory) as publisher,
        ):
            await publisher.fill_log()
            memory = Memory(server.process.pid, sizes)
            memory.note("with a full log and nobody there")
            subscribers = Subscribers(server.port, f"{publisher.w}/events?cursor=latest")
            await trio.to_thread.run_sync(subscribers.add, options.subscribers)
            each = memory.note(f"with {options.subscribers:,} subscribers") / options.subscribers
            subscribers.start()
            rounds = Rounds(server, publisher, subscribers, options, times)
            await rounds.run("without")
            memory.note("after a round")
            everything = f"{publisher.w}/events?cursor=earliest"
            with stalled(server.port, everything):
                await rounds.run("with one stalled")
                growth = memory.note("after a round with one stalled")
            await rounds.run("without, again")
            with stalled(server.port, everything):
                await publisher.publish()
                await check_end(server, subscribers, options, report)
            rounds.check(report)
            report.check("memory of a subscriber, in KB", each < 1, f"{each * 1000:.0f}")
            report.check(f"a stalled one costs less than {GROWTH_MB:.0f} MB", growth < GROWTH_MB, f"{growth:.1f} MB")


class Publisher:
    """Makes events, and makes the log long."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.w = ""
        self.session_id = ""

    async def begin(self, directory: str) -> None:
        """Open a workspace, and the session that is renamed."""
        created = await self._connection.request("POST", "/v1/workspaces", {"path": directory})
        self.w = f"/v1/workspaces/{created.json()['id']}"
        session = await self._connection.request("POST", f"{self.w}/sessions", {"title": "subject"})
        self.session_id = session.json()["id"]

    async def publish(self) -> None:
        """Rename the session to this moment."""
        body = {"id": self.session_id, "title": f"at {time.monotonic_ns()}"}
        answer = await self._connection.request("PUT", f"{self.w}/sessions/{self.session_id}", body)
        assert answer.status == 200, answer

    async def fill_log(self) -> None:
        """Some megabytes, so that whoever asks for all of it and does not read stalls at once."""
        prompt = "x" * PROMPT_BYTES
        for number in range(60):
            body = {"session_id": self.session_id, "prompt": prompt, "run_id": f"filler-{number}"}
            answer = await self._connection.request("POST", f"{self.w}/agent", body)
            assert answer.status == 202, answer
        await self._connection.request("GET", f"{self.w}/runs/filler-59?wait_s=60")


@asynccontextmanager
async def open_publisher(server: LiveServer, directory: str) -> AsyncIterator[Publisher]:
    """Somebody with a connection, a workspace and a session."""
    async with server.connect() as connection:
        publisher = Publisher(connection)
        await publisher.begin(directory)
        yield publisher


class Rounds:
    """The same number of events at the same rate, again and again."""

    def __init__(
        self,
        server: LiveServer,
        publisher: Publisher,
        subscribers: Subscribers,
        options: argparse.Namespace,
        table: harness.Table,
    ) -> None:
        self._server = server
        self._publisher = publisher
        self._subscribers = subscribers
        self._options = options
        self._table = table
        self._found: dict[str, list[float]] = {}

    async def run(self, name: str) -> None:
        """One round."""
        count = max(1, round(self._options.seconds * self._options.rate))
        expected = count * self._options.subscribers
        await trio.lowlevel.checkpoint()
        self._subscribers.take()
        began = cpu_seconds(self._server.process.pid)
        next_at = trio.current_time()
        for _ in range(count):
            await trio.sleep_until(next_at)
            next_at += 1 / self._options.rate
            await self._publisher.publish()
        deadline = trio.current_time() + 30
        while len(self._subscribers.latencies) < expected and trio.current_time() < deadline:  # noqa: ASYNC110
            await trio.sleep(0.05)  # another thread counts
        cpu = cpu_seconds(self._server.process.pid) - began
        found = self._found[name] = self._subscribers.take()
        first = harness.percentile(next(iter(self._found.values())), 0.5)
        share = harness.ratio(harness.percentile(found, 0.5), first)
        self._table.add(name, len(found), *harness.spread(found), round(cpu / max(1, len(found)) * 1e6, 1), share)

    def check(self, report: harness.Report) -> None:
        """Everybody was told of everything, and no later for the one that stalls."""
        count = max(1, round(self._options.seconds * self._options.rate)) * self._options.subscribers
        for name, found in self._found.items():
            report.check(f"{name}: every subscriber was told of every event", len(found) == count, f"{len(found):,}")
        without = [each for name, found in self._found.items() if name != "with one stalled" for each in found]
        share = harness.ratio(
            harness.percentile(self._found["with one stalled"], 0.5), harness.percentile(without, 0.5)
        )
        report.check(
            f"p50 with one stalled is at most {SLOWER_AT_MOST} of that without", share <= SLOWER_AT_MOST, share
        )


async def check_end(
    server: LiveServer, subscribers: Subscribers, options: argparse.Namespace, report: harness.Report
) -> None:
    """A SIGTERM with everybody connected, and one of them stalled."""
    began, used = trio.current_time(), cpu_seconds(server.process.pid)
    server.process.send_signal(signal.SIGTERM)
    with trio.move_on_after(30):
        await server.process.wait()
    took, of_all = trio.current_time() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = of_all.ru_utime + of_all.ru_stime - used
    await trio.to_thread.run_sync(subscribers.stop)
    ended = subscribers.ended
    report.check(
        f"the server leaves within {SHUTDOWN_S:.0f} s", took <= SHUTDOWN_S, f"{took:.2f} s, {used:.2f} of them of CPU"
    )
    report.check("every stream has ended", ended == options.subscribers, f"{ended:,}")


class Memory:
    """Resident memory of a process, noted in a table."""

    def __init__(self, pid: int, table: harness.Table) -> None:
        self._pid = pid
        self._table = table
        self._last: float | None = None

    def note(self, when: str) -> float:
        """Note it; how much more it is than the last time, in MB."""
        now = resident_mb(self._pid)
        more = 0.0 if self._last is None else now - self._last
        self._table.add(when, round(now, 1), None if self._last is None else round(more, 1))
        self._last = now
        return more


def allow_descriptors(count: int) -> None:
    """Raise the soft limit, as far as it may be raised."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        allowed = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


if __name__ == "__main__":
    harness.run_script(__name__)

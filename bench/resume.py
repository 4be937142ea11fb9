"""What does a reader cost that comes back, by how many events it has missed?

A real server with a long log, and readers that come back to its event stream with `Last-Event-ID`: one after the other,
then many at once. First is the first event that was missed, counted from the sending of the request; caught up is the
last one. The processor time is the server's, for each event and reader. While readers catch up somebody asks for
`GET /v1/health`, one request after the other: what it takes is how much the others notice.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it can be run as a script, too

from bench import harness
from bench.filled_store import FilledStore
from bench.server_process import cpu_seconds, peak_mb, resident_mb
from tests.doubles.live_server import LiveServer, open_live_server

EVENTS_A_RUN = 8  # of the runs that fill the log, or nearly so
CAUGHT_UP_S = 600.0
CHUNK = 1 << 18
PAUSE_S = 0.01  # between two questions for the server's health


@dataclass
class Group:
    """Readers that have missed the same, and what it came to. Times in seconds since the request."""

    missed: int
    readers: int
    first: list[float] = field(default_factory=list)
    caught_up: list[float] = field(default_factory=list)
    received: int = 0  # bytes
    health: list[float] = field(default_factory=list)

    @property
    def events(self) -> int:
        """Read by all of them together."""
        return self.missed * self.readers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "--missed", type=int, nargs="+", default=[0, 10, 100, 1_000, 10_000, 100_000], help="events, by one reader"
    )
    parser.add_argument("--readers", type=int, default=100, help="that come back at once")
    parser.add_argument(
        "--missed-by-all", type=int, nargs="+", default=[10, 100, 1_000], help="events, by each of them"
    )
    parser.add_argument("--rounds", type=int, default=3, help="for one reader; the middle one is told")


async def measure(options: argparse.Namespace, report: harness.Report) -> None:
    """Fill a log, and read it again and again."""
    table = report.table("Coming back", "readers", "missed", "first ms", "caught up ms", "events a second", "MB read",
                         "CPU, µs an event", "health p50 ms", "p99", "resident MB", "more", "peak MB")  # fmt: skip
    length = max([*options.missed, *options.missed_by_all, 1])
    with tempfile.TemporaryDirectory() as name:
        store = FilledStore(Path(name, "data"), workspaces=1, events_kept=2 * length)
        await store.begin(Path(name))
        await trio.to_thread.run_sync(store.add_ended, length // EVENTS_A_RUN + EVENTS_A_RUN)
        latest = await trio.to_thread.run_sync(store.latest_event)
        report.check("the log is long enough", latest >= length, latest)
        arguments = ("--no-token", "--log-level", "warning")
        async with open_live_server(store.data_dir, arguments=arguments) as server:
            w = f"/v1/workspaces/{store.ids[0]}"
            readings = Readings(server, f"{w}/events", latest, table)
            await readings.read(Group(min(options.missed), 1))  # warms up
            for missed in options.missed:
                await readings.tell([Group(missed, 1) for _ in range(options.rounds)])
            for missed in options.missed_by_all:
                await readings.tell([Group(missed, options.readers)])
            report.check("the server has nothing to complain of", not server.log, server.log[:500])


class Readings:
    """Groups of readers, one after the other, of one server."""

    def __init__(self, server: LiveServer, target: str, latest: int, table: harness.Table) -> None:
        self._server = server
        self._target = target
        self._latest = latest
        self._table = table

    async def tell(self, groups: list[Group]) -> None:
        """Read with each group, and tell of the middle one, by its processor time."""
        pid = self._server.process.pid
        before = resident_mb(pid)
        found = []
        for group in groups:
            used = cpu_seconds(pid)
            await self.read(group)
            found.append((cpu_seconds(pid) - used, group))
        used, group = sorted(found, key=lambda each: each[0])[len(found) // 2]
        last = max(group.caught_up)
        resident = resident_mb(pid)
        self._table.add(
            group.readers, group.missed, harness.ms(harness.percentile(group.first, 0.5)), harness.ms(last),
            round(group.events / last), round(group.received / 1e6, 1),
            round(used / group.events * 1e6, 1) if group.events else None, *harness.spread(group.health)[:2],
            round(resident, 1), round(resident - before, 1), round(peak_mb(pid), 1),
        )  # fmt: skip

    async def read(self, group: Group) -> None:
        """Have them all come back at once, until each has caught up."""
        with trio.fail_after(CAUGHT_UP_S):
            async with trio.open_nursery() as watching:
                watching.start_soon(self._ask_health, group)
                async with trio.open_nursery() as reading:
                    for _ in range(group.readers):
                        reading.start_soon(self._come_back, group)
                watching.cancel_scope.cancel()

    async def _come_back(self, group: Group) -> None:
        """One reader. With nothing missed it is told the number that it named, and that is all there is."""
        async with await trio.open_tcp_stream("127.0.0.1", self._server.port) as stream:
            lines = (f"GET {self._target} HTTP/1.1", "Host: 127.0.0.1", f"Last-Event-ID: {self._latest - group.missed}")
            began = trio.current_time()
            await stream.send_all("\r\n".join((*lines, "", "")).encode())
            first = b"\nid: %d\n" % (self._latest - group.missed + 1)
            last = b"\nid: %d\n" % self._latest if group.missed else b"id: %d\n" % self._latest
            is_first, tail = bool(group.missed), b""
            while True:
                data = await stream.receive_some(CHUNK)
                assert data, "the stream has ended"
                group.received += len(data)
                looked = tail + data
                if is_first and first in looked:
                    group.first.append(trio.current_time() - began)
                    is_first = False
                if last in looked:
                    group.caught_up.append(trio.current_time() - began)
                    return
                tail = looked[-len(last) - len(first) :]

    async def _ask_health(self, group: Group) -> None:
        async with self._server.connect() as connection:
            while True:
                began = trio.current_time()
                await connection.request("GET", "/v1/health")
                group.health.append(trio.current_time() - began)
                await trio.sleep(PAUSE_S)


if __name__ == "__main__":
    harness.run_script(__name__)

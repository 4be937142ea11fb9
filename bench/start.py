"""How long does a server take to start, by how much is stored and by how much is unfinished?

A real server, over a store that holds runs which have ended, each with a permission that was asked for, and runs that a
killed server has left: half of them in the middle of their turns, half waiting behind those. What the system holds of
the file in memory is forgotten before each start. Ready is the first 200 of `GET /v1/ready`, counted from the start of
the process; by then every run that was in the middle of its turn has its ending, and what waited is on its way. A
prompt is sent at that moment, to a session of its own, and has to share the server with all that waited.

The two are varied apart from each other; ratios are to the start with the same number stored and nothing unfinished.
`--stored 1000000` takes some minutes, and 4 GB of disk.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it can be run as a script, too

from bench import harness
from bench.filled_store import ANSWERED, MODEL, FilledStore
from bench.server_process import cpu_seconds, peak_mb, resident_mb
from tests.doubles.live_server import Connection, LiveServer, open_live_server

LOOK_S = 0.1  # between two looks at how many runs have not ended
OVER_S = 900.0  # by then all have


@dataclass
class Start:
    """One start, in seconds since it began and in MB."""

    stored: int
    unfinished: int
    ready_s: float = 0.0
    cpu_s: float = 0.0  # at that moment
    ready_mb: float = 0.0
    accepted_s: float = 0.0  # since the prompt was sent
    answered_s: float = 0.0
    over_s: float = 0.0
    peak_mb: float = 0.0
    log: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--stored", type=int, nargs="+", default=[10_000, 100_000], help="runs that have ended")
    parser.add_argument("--unfinished", type=int, nargs="+", default=[100, 1_000, 10_000], help="runs that have not")
    parser.add_argument("--workspaces", type=int, default=16, help="that the runs belong to")


async def measure(options: argparse.Namespace, report: harness.Report) -> None:
    """Start a server over each store."""
    stores = report.table("The stores", "stored runs", "filled in s", "MB")
    starts = report.table("Starts", "stored runs", "unfinished", "ready s", "ratio", "CPU s", "ratio", "ready MB",
                          "peak MB")  # fmt: skip
    ways = report.table("What follows, in s", "stored runs", "unfinished", "new prompt accepted", "completed",
                        "all that was unfinished has ended")  # fmt: skip
    left = 0
    for stored in sorted(options.stored):
        with tempfile.TemporaryDirectory() as name:
            store = FilledStore(Path(name, "data"), workspaces=options.workspaces)
            began = trio.current_time()
            await store.begin(Path(name))
            await trio.to_thread.run_sync(store.add_ended, stored)
            size = store.path.stat().st_size / 1e6
            stores.add(stored, round(trio.current_time() - began, 1), round(size))
            await start(store, Start(stored, 0))  # the first one may have more to do than the next
            idle = await start(store, Start(stored, 0))
            for unfinished in (0, *sorted(options.unfinished)):
                found = idle if not unfinished else await start(store, Start(stored, unfinished))
                starts.add(
                    stored, unfinished, round(found.ready_s, 2), harness.ratio(found.ready_s, idle.ready_s),
                    round(found.cpu_s, 2), harness.ratio(found.cpu_s, idle.cpu_s), round(found.ready_mb),
                    round(found.peak_mb),
                )  # fmt: skip
                ways.add(
                    stored, unfinished, round(found.accepted_s, 3), round(found.answered_s, 2), round(found.over_s, 2)
                )
            left += store.count_unfinished()
    report.check("nothing is left unfinished", not left, left)


async def start(store: FilledStore, found: Start) -> Start:
    """Start a server over the store, with so much unfinished, and kill it when all of it has ended."""
    await trio.to_thread.run_sync(store.add_unfinished, found.unfinished)
    await trio.to_thread.run_sync(store.forget_pages)
    began = trio.current_time()
    arguments = ("--no-token", "--log-level", "warning")
    async with (
        open_live_server(store.data_dir, arguments=arguments, start_s=OVER_S) as server,
        server.connect() as connection,
    ):
        while (await connection.request("GET", "/v1/ready")).status != 200:  # noqa: ASYNC110
            await trio.sleep(LOOK_S / 10)
        found.ready_s = trio.current_time() - began
        pid = server.process.pid
        found.cpu_s, found.ready_mb = cpu_seconds(pid), resident_mb(pid)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_prompt, server, connection, store.ids[0], found)
            with trio.fail_after(OVER_S):
                while await trio.to_thread.run_sync(store.count_unfinished):  # noqa: ASYNC110
                    await trio.sleep(LOOK_S)  # the store has no bell
            found.over_s = trio.current_time() - began
        found.peak_mb = peak_mb(pid)
        found.log = server.log
        await stop(server)
    return found


async def send_prompt(server: LiveServer, connection: Connection, workspace_id: str, found: Start) -> None:
    """Send the first prompt that is new, and wait until it is answered."""
    w = f"/v1/workspaces/{workspace_id}"
    session = await connection.request("POST", f"{w}/sessions", {"title": "new"})
    if session.status != 200:
        raise RuntimeError(f"{session}; the server's log says: {server.log[-2000:]}")
    began = trio.current_time()
    body = {"session_id": session.json()["id"], "prompt": ANSWERED, "model": MODEL, "if_busy": "enqueue"}
    answer = await connection.request("POST", f"{w}/agent", body)
    assert answer.status == 202, answer
    found.accepted_s = trio.current_time() - began
    run = answer.json()
    while run.get("ended_at") is None:
        run_id = run.get("run_id") or run["id"]
        run = (await connection.request("GET", f"{w}/runs/{run_id}?wait_s=60")).json()
    assert run["state"] == "completed", run
    found.answered_s = trio.current_time() - began


async def stop(server: LiveServer) -> None:
    """Have it leave in order, so that nothing of it is in the log of the database."""
    server.process.terminate()
    with trio.fail_after(60):
        await server.process.wait()


if __name__ == "__main__":
    harness.run_script(__name__)

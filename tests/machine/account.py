"""The account: everything that a client can read of a workspace at rest."""

from typing import TYPE_CHECKING, Any

import msgspec

from tests.machine.ledger import Call
from tests.machine.readers import Reader

if TYPE_CHECKING:
    from tests.machine.world import World

PAGE = 3  # runs; small, so that there are several pages


class Account(msgspec.Struct, frozen=True):
    """The log, the runs, the newest first, and the messages of each session."""

    log: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    messages: dict[str, list[dict[str, Any]]]


async def read_account(world: "World") -> Account:
    """Read all of it over HTTP."""
    sessions = await get(world, "sessions")
    messages = {session["id"]: await get(world, f"sessions/{session['id']}/messages") for session in sessions}
    return Account(await read_log(world), await read_runs(world), messages)


async def read_runs(world: "World") -> list[dict[str, Any]]:
    """All runs, page by page."""
    runs: list[dict[str, Any]] = []
    following = None
    while True:
        page = await get(world, f"runs?limit={PAGE}" + (f"&before={following}" if following is not None else ""))
        runs += page["runs"]
        if (following := page["next"]) is None:
            return runs


async def read_log(world: "World") -> list[dict[str, Any]]:
    """All events."""
    reader = Reader(world.ledger, "of the account", run_id=None, deltas=False)
    world.connect(reader, "earliest", by_header=False)
    await world.pause(None)
    reader.detach()
    await world.pause(None)
    return [event for event in reader.legs[-1].events if "id" in event]


async def get(world: "World", place: str) -> Any:
    """What is there."""
    call = await world.ask(Call(kind="account", method="GET", path=f"{world.w}/{place}"))
    assert call.status == 200, call
    return call.told

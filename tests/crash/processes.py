"""The processes that the tools of a server started, found by what stands in their environment."""

from pathlib import Path

import trio

from tests.crash.ledger import Sent, Violation
from tests.crash.scripts import RUN

LIFE = "CRASH_LIFE"  # a variable of every command of a server: whose it is
GONE_S = 30.0  # how long they may take to go after their server, on a machine with much else to do
BETWEEN_S = 0.01


def marked(*marks: str) -> list[str]:
    """The processes with each of these in their environment or among their arguments, as one would read them. Those
    that have ended, and wait for their parent, have neither."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                arguments = (process / "cmdline").read_bytes()
                all_of_it = arguments + (process / "environ").read_bytes()
            except OSError:
                continue  # it has just gone, or is somebody else's
            if all(mark.encode() in all_of_it for mark in marks):
                found.append(f"{process.name}: {arguments.decode(errors='replace')}")
    return found


async def wait_gone(mark: str) -> None:
    """Return when nothing is left of what the tools of servers with such a mark started; they are dead. Raises
    Violation."""
    give_up_at = trio.current_time() + GONE_S
    while left := marked(f"{LIFE}={mark}"):
        if trio.current_time() > give_up_at:
            raise Violation(f"a tool outlived its server: {left} (R10, R25)")
        await trio.sleep(BETWEEN_S)
    await trio.lowlevel.checkpoint()


def check_gone(mark: str, sent: Sent, state: str) -> None:
    """Nothing that a canceled run started is left when its end is told (R10): of a server with this mark. Raises
    Violation."""
    if state != "canceled" or RUN not in sent.text or sent.body["if_busy"] == "steer":
        return  # what was steered may be in the turn of another, which goes on
    if left := marked(f"{LIFE}={mark}", f"{RUN}={sent.text.split()[0]}."):
        raise Violation(f"run {sent.run_id} has ended {state}, and left {left} (R10)")

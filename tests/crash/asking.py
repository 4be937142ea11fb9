"""One question to a server that may die before it has answered."""

from collections.abc import Mapping
from typing import Any

import trio

from tests.crash.ledger import Violation
from tests.doubles.live_server import Connection

LEAVING = 503


async def ask(connection: Connection, target: str, body: Any, headers: Mapping[str, str] | None = None) -> Any:
    """Status and body of an answer that came as a whole; raises EndOfChannel for any other."""
    await connection.send("POST", target, body, headers=headers)
    answer = await (await connection.answer()).read()
    if not answer.has_ended_properly or not answer.body:
        raise trio.EndOfChannel
    return answer.status, answer.json()


async def ask_well(connection: Connection, target: str, body: Any) -> Any:
    """The body of an answer that must be a good one. Raises Violation."""
    status, answer = await ask(connection, target, body)
    if status >= 300:
        raise Violation(f"{target}: {status} {answer}")
    return answer


async def look(connection: Connection, target: str) -> Any:
    """What is there; None if the server is leaving. Raises Violation for any other answer but a good one."""
    await connection.send("GET", target)
    answer = await (await connection.answer()).read()
    if not answer.has_ended_properly:
        raise trio.EndOfChannel
    if answer.status == LEAVING:
        return None
    if answer.status != 200:
        raise Violation(f"{target} is {answer}")
    return answer.json()

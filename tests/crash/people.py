"""The people who are asked: they answer what waits, or do not want to, and more than one at a time."""

import random
from typing import Any

import trio

from tests.crash.asking import ask, look
from tests.crash.ledger import Ledger, Violation
from tests.crash.readers import GONE
from tests.doubles.live_server import Connection, LiveServer

DECISIONS = ("allow", "allow", "allow_session", "deny")
ENDED = {"completed", "canceled", "failed", "interrupted"}
BETWEEN_S = 0.05  # two looks of somebody who answers everything


class People:
    """Those who answer in one workspace. What was decided before is in the ledger."""

    def __init__(self, ledger: Ledger, draw: random.Random) -> None:
        self.dead: set[str] = set()  # requests that were open when a server died
        self._ledger = ledger
        self._draw = draw

    async def answer_one(self, connection: Connection, w: str) -> None:
        """Answer one of the requests that wait, if there is one, and check that it is one to wait for."""
        if waiting := await self.waiting(connection, w):
            request_id, kind, run_id = self._draw.choice(waiting)
            await self._check_alive(connection, w, request_id, run_id)
            await self._answer(connection, w, request_id, kind)

    async def answer_all(self, server: LiveServer, w: str) -> None:
        """Answer whatever comes, two people at a time, until the server is gone."""
        try:
            async with server.connect() as one, server.connect() as other:
                while True:
                    for request_id, kind, _ in await self.waiting(one, w):
                        async with trio.open_nursery() as nursery:
                            nursery.start_soon(self._answer_or_go, one, w, request_id, kind)
                            nursery.start_soon(self._answer_or_go, other, w, request_id, kind)
                    await trio.sleep(BETWEEN_S)
        except GONE:
            await trio.lowlevel.checkpoint()

    async def waiting(self, connection: Connection, w: str) -> list[tuple[str, str, str]]:
        """What waits: the id, the kind and the run of each. Nothing that was asked of a dead server does (R25)."""
        found: list[tuple[str, str, str]] = []
        for kind in ("permissions", "questions"):
            asked = await look(connection, f"{w}/{kind}") or ()
            found += [(request["id"], kind, request["run_id"]) for request in asked]
        if late := self.dead.intersection(request_id for request_id, _, _ in found):
            raise Violation(f"requests {late} were asked of a server that is dead, and still wait (R25)")
        return found

    async def _check_alive(self, connection: Connection, w: str, request_id: str, run_id: str) -> None:
        run = await look(connection, f"{w}/runs/{run_id}")
        if (
            run
            and run["state"] in ENDED
            and any(request_id == each for each, _, _ in await self.waiting(connection, w))
        ):
            raise Violation(f"request {request_id} waits, and its run {run_id} is {run['state']} (R10)")

    async def _answer_or_go(self, connection: Connection, w: str, request_id: str, kind: str) -> None:
        try:
            await self._answer(connection, w, request_id, kind)
        except GONE:
            await trio.lowlevel.checkpoint()

    async def _answer(self, connection: Connection, w: str, request_id: str, kind: str) -> None:
        decision = self._draw.choice(DECISIONS)
        path, body = f"{w}/permissions/grant", dict[str, Any](permission={"id": request_id}, action=decision)
        if kind == "questions":
            decision = "deny" if decision == "deny" else "allow"
            answers = [{"request_id": "1", "yes": self._draw.random() < 0.5}] if decision == "allow" else None
            path = f"{w}/questions/{'answer' if answers else 'cancel'}"
            body = {"batch_request_id": request_id, **({"responses": answers} if answers else {})}
        status, answer = await ask(connection, path, body)
        if status == 200 and answer["resolved"]:
            self._ledger.decides(request_id, decision)

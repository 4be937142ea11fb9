"""What clients do to a server until it dies."""

import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from itertools import count
from typing import Any
from uuid import UUID

import trio

from tests.crash.asking import LEAVING, ask, ask_well, look
from tests.crash.ledger import Ledger, Sent, Violation
from tests.crash.people import People
from tests.crash.readers import GONE
from tests.crash.scripts import speak, work
from tests.doubles.live_server import Connection, LiveServer

STOPPING = "server_stopping"
REFUSALS = {409, 429, LEAVING}  # what a prompt may be refused with: busy under `reject`, full, leaving
PAUSE_S = 0.01
WORKING = 0.4  # of the sessions: what runs there uses tools, and stands until somebody lets it go


class Load:
    """Clients of one workspace. What they do is drawn from the seed; when they do it is the machine's."""

    def __init__(self, ledger: Ledger, random_: random.Random, *, in_flight: int) -> None:
        self.w = ""
        self.sessions: list[str] = []
        self.ledger = ledger
        self.target = in_flight
        self.loaded = trio.Event()
        self.resent = 0
        self.has_begun = False  # with this server: it has taken up what the one before it left
        self.people = People(ledger, random_)
        self._random = random_
        self._numbers = count(1)

    async def begin(self, server: LiveServer, path: str, *, sessions: int) -> bool:
        """Open the workspace and its sessions, if that was not done; whether it was. Each may be told twice, and only
        what was answered counts."""
        try:
            async with server.connect() as connection:
                if not self.w:
                    self.w = "/v1/workspaces/" + (await ask_well(connection, "/v1/workspaces", {"path": path}))["id"]
                while len(self.sessions) < sessions:
                    session = await ask_well(connection, f"{self.w}/sessions", {"title": "load"})
                    self.sessions.append(session["id"])
                await self.people.waiting(connection, self.w)
        except GONE:
            await trio.lowlevel.checkpoint()
            return False
        self.has_begun = True
        return True

    async def resend(self, server: LiveServer) -> None:
        """Send again what was not answered (R06)."""
        try:
            async with server.connect() as connection:
                for sent in self.ledger.open_prompts():
                    await self.send(connection, sent)
                    self.resent += 1
        except GONE:
            await trio.lowlevel.checkpoint()

    async def client(self, server: LiveServer) -> None:
        """One client, until the server is gone."""
        try:
            async with AsyncExitStack() as stack:
                connection = await stack.enter_async_context(server.connect())
                while True:
                    await self._act(connection)
                    if self.ledger.in_flight >= self.target:
                        self.loaded.set()
                        await trio.sleep(PAUSE_S * self._random.random())
        except GONE:
            await trio.lowlevel.checkpoint()

    async def _act(self, connection: Connection) -> None:
        draw = self._random.random()
        is_loaded = self.ledger.in_flight >= self.target
        if draw < (0.3 if is_loaded else 0.88):
            await self.send(connection, self._new_prompt())
        else:
            await self._random.choice(self._others())(connection)

    def _others(self) -> list[Callable[[Connection], Any]]:
        cancels = [self._cancel_session, self._cancel_run, self._cancel_run, self._clear]
        return [*cancels, self._answer, self._answer, self._send_again, self._look]

    async def _answer(self, connection: Connection) -> None:
        await self.people.answer_one(connection, self.w)

    def _new_prompt(self) -> Sent:
        draw, number = self._random, next(self._numbers)
        session = draw.randrange(len(self.sessions))
        is_work = session < WORKING * len(self.sessions) or draw.random() < 0.1
        policies = ["enqueue"] * 7 + ["steer"] * 2
        if self.ledger.in_flight >= self.target:
            policies += ["interrupt", "reject"]
        body = {
            "session_id": self.sessions[session],
            "prompt": f"{number}\n```script\n{work(draw, number) if is_work else speak(draw)}\n```",
            "model": "offline/script",
            "on_crash": draw.choice(["interrupt", "interrupt", "retry"]),
            "if_busy": draw.choice(policies),
        }
        headers = {}
        if draw.random() < 0.7:
            body["run_id"] = str(UUID(int=draw.getrandbits(128), version=4))
        else:
            headers["Idempotency-Key"] = f"key-{number}"
        sent = Sent(body["prompt"], body["session_id"], body, headers)
        self.ledger.sent[sent.text] = sent
        return sent

    async def send(self, connection: Connection, sent: Sent) -> None:
        """Send a prompt, for the first time or again. Raises EndOfChannel if it is not answered."""
        sent.times += 1
        status, answer = await ask(connection, f"{self.w}/agent", sent.body, sent.headers)
        if status == 202:
            self.ledger.accepted(sent, answer)
        elif status == LEAVING and (sent.times > 1 or answer["type"] != STOPPING):
            return  # nothing is said of what became of it before
        elif status in REFUSALS:
            self.ledger.refused(sent, status)
        else:
            raise Violation(f"{sent.body}: {status} {answer}")

    async def _send_again(self, connection: Connection) -> None:
        if self.ledger.acknowledged:
            await self.send(connection, self._random.choice(list(self.ledger.acknowledged.values())))

    async def _cancel_session(self, connection: Connection) -> None:
        await self._cancel(connection, f"agent/sessions/{self._random.choice(self.sessions)}/cancel")

    async def _clear(self, connection: Connection) -> None:
        await self._cancel(connection, f"agent/sessions/{self._random.choice(self.sessions)}/prompts/clear")

    async def _cancel_run(self, connection: Connection) -> None:
        runs, draw = self.ledger.runs_in_flight(), self._random.random()
        if draw < 0.1:
            runs = list(self.ledger.acknowledged)
        elif draw < 0.7:  # the first of each session: what is active
            runs = list({self.ledger.acknowledged[run_id].session_id: run_id for run_id in reversed(runs)}.values())
        if runs:
            await self._cancel(connection, f"runs/{self._random.choice(runs)}/cancel")

    async def _cancel(self, connection: Connection, path: str) -> None:
        status, answer = await ask(connection, f"{self.w}/{path}", None)
        if status == 200:
            self.ledger.named.update(answer["canceled"])
        elif status != LEAVING:
            raise Violation(f"{path}: {status} {answer}")

    async def _look(self, connection: Connection) -> None:
        """A run that was answered is there, from that moment on."""
        if not self.ledger.acknowledged:
            return
        run_id = self._random.choice(list(self.ledger.acknowledged))
        run = await look(connection, f"{self.w}/runs/{run_id}")
        if run is not None and run["id"] != run_id:
            raise Violation(f"run {run_id} was accepted, and its page is {run} (R02)")

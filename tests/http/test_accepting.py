"""Accepting through HTTP: what a 202 means, who owns the run, and what happens to a prompt that comes at a bad time."""

import socket
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from tests.doubles.asgi_client import Response
from tests.doubles.engine import ScriptedAgent
from tests.doubles.gate import Gate
from tests.doubles.holding_store import accepts, settles
from tests.doubles.live_server import Connection
from tests.http.service import SocketService, open_service, open_socket_service, payload, read_to_end
from tests.web.api import Api

COMPLETED_TURN = [("user", "hi", "stop"), ("assistant", "You said: hi", "end_turn")]


class Held:
    """An agent that says what it heard, and then stands at a gate until it is opened."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.agent = ScriptedAgent(self.respond)

    async def respond(self, turn: Any) -> None:
        turn.say(f"You said: {turn.prompt.text}")
        await self.gate.pass_through()

    @property
    def answered(self) -> list[str]:
        """The runs it was asked to answer, in order."""
        return [turn.run_id for turn in self.agent.turns]


# R04: a closing workspace, a leaving server


async def test_r04_a_closing_workspace_answers_409(tmp_path: Path, autojump_clock: object) -> None:
    held = Held()
    async with open_service(tmp_path, agent=held.agent) as service:
        await service.send("hi", run_id="r1")
        await held.gate.reached()
        ending = service.store.hold(settles("r1"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(service.client.delete, service.w)
            await ending.reached()
            answer = await service.send("too late", run_id="r2")
            assert (answer.status, answer.json()["type"]) == (409, "workspace_closing")
            ending.open()
        await service.create_workspace()
        assert (await service.client.get(f"{service.w}/runs/r2")).status == 404
        assert (await service.run("r1"))["state"] == "canceled"


async def test_r04_a_server_that_is_leaving_answers_503_and_is_otherwise_there(
    tmp_path: Path, autojump_clock: object
) -> None:
    held = Held()
    async with open_service(tmp_path, agent=held.agent, drain_s=60) as service:
        await service.send("hi", run_id="r1")
        await held.gate.reached()
        service.backend.begin_shutdown(60)
        await trio.testing.wait_all_tasks_blocked()
        answer = await service.send("too late", run_id="r2")
        assert (answer.status, answer.json()["type"]) == (503, "server_stopping")
        assert int(answer.headers["retry-after"]) > 0
        assert (await service.client.get(f"{service.w}/runs/r2")).status == 404
        assert (await service.run("r1"))["state"] == "active"
        async with service.client.stream("GET", f"{service.w}/runs/r1/events") as stream:
            assert (await service.cancel("r1"))["canceled"] == ["r1"], "what drains can be canceled"
            assert payload((await read_to_end(stream))[-1])["state"] == "canceled"


# R05: the request does not own the run


def drop(connection: Connection, how: str) -> None:
    """Let go of a connection: with an end, with a reset, or of its sending half alone."""
    raw = connection.stream.socket
    if how == "half":
        raw.shutdown(socket.SHUT_WR)
        return
    if how == "reset":
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    raw.close()


async def noticed(service: SocketService) -> None:
    """Return once the server knows that nobody is connected any more; the test's deadline bounds it."""
    while True:
        if not service.control.connection_statistics().open:
            return
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("how", ["end", "reset", "half"])
async def test_r05_a_connection_dropped_before_the_answer_leaves_the_run_running(tmp_path: Path, how: str) -> None:
    async with open_socket_service(tmp_path) as service:
        commit = service.store.hold(accepts("r1"))
        async with service.connect() as connection:
            body = {"session_id": service.session_id, "prompt": "hi", "run_id": "r1"}
            await connection.send("POST", f"{service.w}/agent", body)
            await commit.reached()
            drop(connection, how)
            await noticed(service)
        commit.open()
        await service.workspace.lanes.find("r1").wait_settled()
        assert (await service.run("r1"))["state"] == "completed"
        assert await service.turns() == COMPLETED_TURN
        assert len((await service.endings())["r1"]) == 1


@pytest.mark.parametrize("how", ["end", "reset", "half"])
async def test_r05_a_connection_dropped_after_the_answer_leaves_the_run_running(tmp_path: Path, how: str) -> None:
    held = Held()
    async with open_socket_service(tmp_path, agent=held.agent) as service:
        async with service.connect() as connection:
            body = {"session_id": service.session_id, "prompt": "hi", "run_id": "r1"}
            assert (await connection.request("POST", f"{service.w}/agent", body)).status == 202
            await held.gate.reached()
            drop(connection, how)
            await noticed(service)
        held.gate.open()
        assert (await service.ended("r1"))["state"] == "completed"
        assert await service.turns() == COMPLETED_TURN


async def test_r05_a_caller_that_goes_at_any_moment_leaves_a_whole_run_or_none(
    tmp_path: Path, autojump_clock: object
) -> None:
    states = set()
    async with open_service(tmp_path) as service:
        for moments in range(24):
            run_id = f"r{moments}"
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(service.send, "hi", run_id=run_id))
                for _ in range(moments):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            answer = await service.client.get(f"{service.w}/runs/{run_id}?wait_s=60")
            states.add(answer.json().get("state", answer.status))
        assert states == {404, "completed"}, "the moments did not cover both sides of the acceptance"
        completed = [run["id"] for run in (await service.client.get(f"{service.w}/runs?limit=200")).json()["runs"]]
        assert {name: len(each) for name, each in (await service.endings()).items()} == dict.fromkeys(completed, 1)
        assert await service.turns() == COMPLETED_TURN * len(completed)


# R06: retrying is safe


async def together(service: Api, *bodies: dict[str, Any], headers: dict[str, str] | None = None) -> list[Response]:
    """The answers to requests that are all under way before any is answered."""
    answers: dict[int, Response] = {}

    async def send(at: int, body: dict[str, Any]) -> None:
        whole = {"session_id": service.session_id, **body}
        answers[at] = await service.client.post(f"{service.w}/agent", whole, headers=headers or {})

    async with trio.open_nursery() as nursery:
        for at, body in enumerate(bodies):
            nursery.start_soon(send, at, body)
    return [answers[at] for at in range(len(bodies))]


async def test_r06_the_same_run_id_twice_at_once_is_one_run(tmp_path: Path, autojump_clock: object) -> None:
    held = Held()
    async with open_service(tmp_path, agent=held.agent) as service:
        answers = await together(service, *[{"prompt": "hi", "run_id": "r1"}] * 4)
        assert {answer.status for answer in answers} == {202}
        assert {(answer.json()["run_id"], answer.json()["seq"]) for answer in answers} == {("r1", 1)}
        held.gate.open()
        await service.ended("r1")
        (again,) = await together(service, {"prompt": "hi", "run_id": "r1"})
        assert (again.status, again.json()["state"]) == (202, "completed")
        assert held.answered == ["r1"]
        assert await service.turns() == COMPLETED_TURN


async def test_r06_an_idempotency_key_is_as_good_as_an_id(tmp_path: Path, autojump_clock: object) -> None:
    async with open_service(tmp_path) as service:
        key = {"Idempotency-Key": "mine"}
        first, second = await together(service, {"prompt": "hi"}, {"prompt": "hi"}, headers=key)
        assert first.status == second.status == 202
        assert first.json()["run_id"] == second.json()["run_id"]
        run_id = (await service.ended(first.json()["run_id"]))["id"]
        (again,) = await together(service, {"prompt": "hi"}, headers=key)
        assert (again.json()["run_id"], again.json()["state"]) == (run_id, "completed")
        (other,) = await together(service, {"prompt": "hi"}, headers={"Idempotency-Key": "another"})
        assert other.json()["run_id"] != run_id


@pytest.mark.parametrize("when", ["at once", "while it runs", "afterwards"])
@pytest.mark.parametrize("key", ["run_id", "Idempotency-Key"])
async def test_r06_the_same_key_for_another_request_is_422(
    tmp_path: Path, autojump_clock: object, key: str, when: str
) -> None:
    held = Held()
    headers = {"Idempotency-Key": "mine"} if key != "run_id" else {}
    body: dict[str, Any] = {"run_id": "mine"} if key == "run_id" else {}
    async with open_service(tmp_path, agent=held.agent) as service:
        if when == "at once":
            answers = await together(service, {"prompt": "hi", **body}, {"prompt": "ho", **body}, headers=headers)
        else:
            answers = await together(service, {"prompt": "hi", **body}, headers=headers)
            if when == "afterwards":
                held.gate.open()
                await service.ended(answers[0].json()["run_id"])
            answers += await together(service, {"prompt": "ho", **body}, headers=headers)
        refused = next(answer for answer in answers if answer.status != 202)
        assert sorted(answer.status for answer in answers) == [202, 422]
        assert (refused.json()["type"], refused.json()["field"]) == ("idempotency_conflict", key)
        held.gate.open()
        await service.ended(next(answer for answer in answers if answer.status == 202).json()["run_id"])
        assert len(held.answered) == 1


async def test_r06_the_answer_that_was_lost_is_given_again(tmp_path: Path) -> None:
    """Over sockets: the first connection drops before its answer, and the retry is the same run."""
    async with open_socket_service(tmp_path) as service:
        commit = service.store.hold(accepts("r1"))
        body = {"session_id": service.session_id, "prompt": "hi", "run_id": "r1"}
        async with service.connect() as first, service.connect() as second:
            await first.send("POST", f"{service.w}/agent", body)
            await commit.reached()
            drop(first, "reset")
            await second.send("POST", f"{service.w}/agent", body)
            commit.open()
            answer = await (await second.answer()).read()
        assert (answer.status, answer.json()["run_id"], answer.json()["seq"]) == (202, "r1", 1)
        await service.ended("r1")
        assert await service.turns() == COMPLETED_TURN


# R15: what happens to a prompt while its session is busy


async def test_r15_enqueue_is_the_default_of_a_prompt_with_an_id(tmp_path: Path, autojump_clock: object) -> None:
    held = Held()
    async with open_service(tmp_path, agent=held.agent) as service:
        await service.send("first", run_id="r1")
        await held.gate.reached()
        await service.send("second", run_id="r2")
        await trio.testing.wait_all_tasks_blocked()
        second = await service.run("r2")
        assert (second["state"], second["if_busy"]) == ("queued", "enqueue")
        held.gate.open()
        assert (await service.ended("r2"))["state"] == "completed"
        assert held.answered == ["r1", "r2"]


async def test_r15_reject_is_a_409_that_leaves_no_trace(tmp_path: Path, autojump_clock: object) -> None:
    held = Held()
    async with open_service(tmp_path, agent=held.agent) as service:
        await service.send("first", run_id="r1")
        await held.gate.reached()
        answer = await service.send("second", run_id="r2", if_busy="reject")
        assert (answer.status, answer.json()["type"]) == (409, "session_busy")
        assert (await service.client.get(f"{service.w}/runs/r2")).status == 404
        held.gate.open()
        await service.ended("r1")
        assert (await service.send("second", run_id="r2", if_busy="reject")).status == 202


async def test_r15_interrupt_cancels_what_is_active_and_queued_and_then_runs(
    tmp_path: Path, autojump_clock: object
) -> None:
    held = Held()
    async with open_service(tmp_path, agent=held.agent) as service:
        await service.send("first", run_id="r1")
        await held.gate.reached()
        await service.send("second", run_id="r2")
        answer = await service.send("third", run_id="r3", if_busy="interrupt")
        assert answer.status == 202
        held.gate.open()
        states = {name: (await service.ended(name))["state"] for name in ("r1", "r2", "r3")}
        assert states == {"r1": "canceled", "r2": "canceled", "r3": "completed"}
        assert {name: len(each) for name, each in (await service.endings()).items()} == {"r1": 1, "r2": 1, "r3": 1}
        assert held.answered == ["r1", "r3"]


class Listener:
    """An agent whose turn has a second step, in which it hears what was steered into it, if there is one."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.agent = ScriptedAgent(self.respond)

    async def respond(self, turn: Any) -> None:
        turn.say("One.")
        if turn.prompt.text == "first":
            await self.gate.pass_through()
            heard = await turn.steered()
            await turn.next_step()
            turn.say(f"Heard {[message.text for message in heard]}.")
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("how", [{}, {"if_busy": "steer"}, {"run_id": "r2", "if_busy": "steer"}])
async def test_r15_a_prompt_without_id_and_policy_steers(
    tmp_path: Path, autojump_clock: object, how: dict[str, str]
) -> None:
    listener = Listener()
    async with open_service(tmp_path, agent=listener.agent) as service:
        await service.send("first", run_id="r1")
        await listener.gate.reached()
        steered = (await service.send("second", **how)).json()["run_id"]
        await trio.testing.wait_all_tasks_blocked()
        listener.gate.open()
        assert (await service.ended("r1"))["state"] == "completed"
        run = await service.ended(steered)
        assert (run["state"], run["if_busy"], run["steered_into"]) == ("completed", "steer", "r1")
        (ending,) = (await service.endings())[steered]
        assert (ending["run_id"], ending["steered_into"], ending["text"]) == (steered, "r1", "Heard ['second'].")
        assert [(role, text) for role, text, _ in await service.turns()] == [
            ("user", "first"), ("assistant", "One."), ("user", "second"), ("assistant", "Heard ['second']."),
        ]  # fmt: skip
        assert len(listener.agent.turns) == 1


async def test_r15_a_prompt_that_steers_a_turn_without_another_step_is_a_turn_of_its_own(
    tmp_path: Path, autojump_clock: object
) -> None:
    held = Held()
    async with open_service(tmp_path, agent=held.agent) as service:
        await service.send("first", run_id="r1")
        await held.gate.reached()
        steered = (await service.send("second")).json()["run_id"]
        held.gate.open()
        run = await service.ended(steered)
        assert (run["state"], run["steered_into"]) == ("completed", None)
        assert held.answered == ["r1", steered]


# R16: a queue has a bound


@pytest.mark.parametrize("bound", ["queue_per_session", "queue_per_workspace"])
async def test_r16_a_full_queue_is_429_with_a_time_to_come_back(
    tmp_path: Path, autojump_clock: object, bound: str
) -> None:
    held = Held()
    bounds: dict[str, Any] = {bound: 2}
    async with open_service(tmp_path, agent=held.agent, **bounds) as service:
        await service.send("first", run_id="active")
        await held.gate.reached()
        assert [(await service.send("more")).status for _ in range(2)] == [202, 202]
        answer = await service.send("too much", run_id="r9")
        assert (answer.status, answer.json()["type"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) > 0
        assert (await service.client.get(f"{service.w}/runs/r9")).status == 404
        other = await service.create_session()
        elsewhere = {"session_id": other, "prompt": "elsewhere", "run_id": "r8"}
        expected = 202 if bound == "queue_per_session" else 429
        assert (await service.client.post(f"{service.w}/agent", elsewhere)).status == expected
        held.gate.open()
        await service.ended("active")
        await trio.testing.wait_all_tasks_blocked()
        assert (await service.send("now", run_id="r9")).status == 202


async def test_r16_many_at_once_get_exactly_as_many_places_as_there_are(tmp_path: Path, autojump_clock: object) -> None:
    held = Held()
    async with open_service(tmp_path, agent=held.agent, queue_per_session=5) as service:
        await service.send("first", run_id="active")
        await held.gate.reached()
        answers = await together(service, *[{"prompt": "more", "run_id": f"r{at}"} for at in range(20)])
        assert sorted(answer.status for answer in answers) == [202] * 5 + [429] * 15
        held.gate.open()
        for answer in answers:
            if answer.status == 202:
                assert (await service.ended(answer.json()["run_id"]))["state"] == "completed"
        assert len((await service.client.get(f"{service.w}/runs")).json()["runs"]) == 6


async def test_a_body_that_is_no_prompt_leaves_no_trace(tmp_path: Path, autojump_clock: object) -> None:
    async with open_service(tmp_path) as service:
        for body in (b"", b"{", msgspec.json.encode({"session_id": service.session_id, "prompt": " "})):
            answer = await service.client.request("POST", f"{service.w}/agent", body=body)
            assert answer.status == 400, answer
        assert (await service.client.get(f"{service.w}/runs")).json()["runs"] == []
        assert await service.endings() == {}

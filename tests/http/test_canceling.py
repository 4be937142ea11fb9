"""Canceling through HTTP: what the answer promises, whom it touches, and what it leaves behind."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.doubles.engine import ScriptedAgent
from tests.doubles.gate import Gate
from tests.doubles.holding_store import cancels, settles
from tests.doubles.openai_server import HANG, answer, open_openai_server, say
from tests.http.service import Service, body_of, open_service, open_socket_service

TERMINAL = ("completed", "canceled", "failed")


class Queued:
    """A session with an active run and two that wait behind it."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.agent = ScriptedAgent(self.respond)

    async def respond(self, turn: Any) -> None:
        turn.say("some")
        if turn.run_id == "active":
            await self.gate.pass_through()
        await trio.lowlevel.checkpoint()
        turn.say(" words")

    async def begin(self, service: Service) -> None:
        await service.send("zero", run_id="active")
        await self.gate.reached()
        await service.send("one", run_id="q1")
        await service.send("two", run_id="q2")
        await trio.testing.wait_all_tasks_blocked()

    async def states(self, service: Service) -> dict[str, str]:
        return {name: (await service.run(name))["state"] for name in ("active", "q1", "q2")}


# R11: the answer


async def test_r11_the_answer_names_every_run_that_it_covers_and_each_ends_canceled(
    tmp_path: Path, autojump_clock: object
) -> None:
    queued = Queued()
    async with open_service(tmp_path, agent=queued.agent) as service:
        await queued.begin(service)
        answer = await service.cancel()
        assert answer == {"canceled": ["active", "q1", "q2"]}
        for name in answer["canceled"]:
            run = await service.ended(name)
            assert run["state"] == "canceled"
            assert run["cancel_requested_at"] is not None
        assert {name: len(each) for name, each in (await service.endings()).items()} == {"active": 1, "q1": 1, "q2": 1}


async def test_r11_the_answer_waits_until_the_cancel_is_stored(tmp_path: Path, autojump_clock: object) -> None:
    queued = Queued()
    answers: list[dict[str, Any]] = []
    async with open_service(tmp_path, agent=queued.agent) as service:
        await queued.begin(service)
        record = service.store.hold(cancels("active"))

        async def cancel() -> None:
            answers.append(await service.cancel())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            await record.reached()
            await trio.testing.wait_all_tasks_blocked()
            assert answers == []
            record.open()
        assert answers == [{"canceled": ["active", "q1", "q2"]}]


@pytest.mark.parametrize("by_run", [False, True], ids=["by session", "by run"])
@pytest.mark.parametrize("stored", [False, True], ids=["on its way", "stored"])
async def test_r11_a_run_whose_ending_came_first_is_not_named(
    tmp_path: Path, autojump_clock: object, by_run: bool, stored: bool
) -> None:
    """The ending is with the store, or written there and not yet told, when the cancel comes."""
    answers: list[dict[str, Any]] = []
    async with open_service(tmp_path) as service:
        ending = service.store.hold(settles("r1"), after=stored)

        async def cancel() -> None:
            answers.append(await service.cancel("r1" if by_run else None))

        async with trio.open_nursery() as nursery:
            await service.send("hi", run_id="r1")
            await ending.reached()
            nursery.start_soon(cancel)
            await trio.testing.wait_all_tasks_blocked()
            ending.open()
        assert answers[0]["canceled"] == []
        assert (await service.ended("r1"))["state"] == "completed"
        assert [ending["state"] for ending in (await service.endings())["r1"]] == ["completed"]


async def test_r08_a_cancel_of_an_idle_session_names_nothing_and_poisons_nothing(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_service(tmp_path) as service:
        assert await service.cancel() == {"canceled": []}
        assert await service.cancel(session_id="no such session") == {"canceled": []}
        await service.send("hi", run_id="r1")
        assert (await service.ended("r1"))["state"] == "completed"


async def test_r08_two_cancels_are_one(tmp_path: Path, autojump_clock: object) -> None:
    queued = Queued()
    async with open_service(tmp_path, agent=queued.agent) as service:
        await queued.begin(service)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(service.cancel)
        for name in ("active", "q1", "q2"):
            await service.ended(name)
        assert {name: len(each) for name, each in (await service.endings()).items()} == {"active": 1, "q1": 1, "q2": 1}
        assert [finish for role, _, finish in await service.turns() if role == "assistant"] == ["canceled"] * 3


# R12: one run alone


@pytest.mark.parametrize("name", ["active", "q1", "q2"])
async def test_r12_one_run_is_canceled_and_its_neighbours_run(
    tmp_path: Path, autojump_clock: object, name: str
) -> None:
    queued = Queued()
    async with open_service(tmp_path, agent=queued.agent) as service:
        await queued.begin(service)
        assert (await service.cancel(name))["canceled"] == [name]
        assert (await service.ended(name))["state"] == "canceled"
        queued.gate.open()
        for other in {"active", "q1", "q2"} - {name}:
            assert (await service.ended(other))["state"] == "completed"


async def test_r12_a_cancel_of_a_run_that_has_ended_says_how(tmp_path: Path, autojump_clock: object) -> None:
    async def respond(turn: Any) -> None:
        await trio.lowlevel.checkpoint()
        if turn.prompt.text == "fail":
            raise ValueError("a bug of the agent")
        if turn.prompt.text == "hang":
            await trio.sleep_forever()

    async with open_service(tmp_path, agent=ScriptedAgent(respond)) as service:
        for prompt, state in (("hi", "completed"), ("fail", "failed"), ("hang", "canceled")):
            await service.send(prompt, run_id=state)
            if prompt == "hang":
                await service.cancel(state)
            before = await service.ended(state)
            assert await service.cancel(state) == {"canceled": [], "state": state}
            assert await service.run(state) == before
        assert {name: len(each) for name, each in (await service.endings()).items()} == dict.fromkeys(TERMINAL, 1)


async def test_r12_a_cancel_of_no_run_is_404(tmp_path: Path, autojump_clock: object) -> None:
    async with open_service(tmp_path) as service:
        answer = await service.client.post(f"{service.w}/runs/nothing/cancel")
        assert (answer.status, answer.json()["type"]) == (404, "run_not_found")


# R10, R13: a run that is being answered


async def test_r10_what_was_streamed_stays_and_the_models_connection_is_closed(tmp_path: Path) -> None:
    """A real connection to a model that has begun to answer and goes on for ever."""
    async with open_openai_server() as openai:
        openai.enqueue(answer(say("Once upon"), HANG))
        openai.default = answer(say("A title"))
        environ = {"COUNTERMAND_MODEL": "openai/scripted", "OPENAI_BASE_URL": openai.base_url, "OPENAI_API_KEY": "k"}
        async with open_socket_service(tmp_path, environ=environ, with_agent=False) as service:
            await service.client.put(f"{service.w}/sessions/{service.session_id}", {"title": "mine"})
            async with service.client.stream("GET", f"{service.w}/events?deltas=1") as stream:
                await service.send("Tell me a story", run_id="r1")
                while (await stream.receive_event())["type"] != "message_delta":
                    pass
            asked = next(each for each in openai.requests if "Tell me a story" in each.raw_body.decode())
            assert (await service.cancel("r1"))["canceled"] == ["r1"]
            await asked.gone.wait()
            assert (await service.ended("r1"))["state"] == "canceled"
            assert (await service.turns())[1] == ("assistant", "Once upon", "canceled")
            (ending,) = (await service.endings())["r1"]
            assert (ending["text"], ending["cancelled"]) == ("Once upon", True)


async def test_r13_a_cancel_takes_no_time_whatever_the_agent_waits_for(tmp_path: Path, autojump_clock: object) -> None:
    async def respond(turn: Any) -> None:
        turn.say("thinking")
        await trio.sleep(3000)

    async with open_service(tmp_path, agent=ScriptedAgent(respond)) as service:
        await service.send("hi", run_id="r1")
        await trio.sleep(5)
        began = trio.current_time()
        await service.cancel("r1")
        await service.ended("r1")
        assert trio.current_time() == began


# R17: the queue


async def test_r17_the_queue_is_listed_counted_and_cleared(tmp_path: Path, autojump_clock: object) -> None:
    queued = Queued()
    async with open_service(tmp_path, agent=queued.agent) as service:
        prompts = f"{service.w}/agent/sessions/{service.session_id}/prompts"
        assert body_of(await service.client.get(f"{prompts}/list")) in ([], None)
        assert body_of(await service.client.get(f"{prompts}/queued")) == 0
        await queued.begin(service)
        assert body_of(await service.client.get(f"{prompts}/list")) == ["one", "two"]
        assert body_of(await service.client.get(f"{prompts}/queued")) == 2
        assert body_of(await service.client.post(f"{prompts}/clear")) == {"canceled": ["q1", "q2"]}
        assert body_of(await service.client.get(f"{prompts}/queued")) == 0
        assert [(await service.ended(name))["state"] for name in ("q1", "q2")] == ["canceled", "canceled"]
        assert (await service.run("active"))["state"] == "active", "what is active goes on"
        queued.gate.open()
        assert (await service.ended("active"))["state"] == "completed"
        endings = await service.endings()
        assert {name: [each["state"] for each in every] for name, every in endings.items()} == {
            "active": ["completed"], "q1": ["canceled"], "q2": ["canceled"]
        }  # fmt: skip
        assert [turn.run_id for turn in queued.agent.turns] == ["active"]
        assert body_of(await service.client.post(f"{prompts}/clear")) == {"canceled": []}


async def test_r17_the_turn_of_what_was_cleared_is_stored(tmp_path: Path, autojump_clock: object) -> None:
    queued = Queued()
    async with open_service(tmp_path, agent=queued.agent) as service:
        await queued.begin(service)
        await service.client.post(f"{service.w}/agent/sessions/{service.session_id}/prompts/clear")
        queued.gate.open()
        await service.ended("active")
        await service.ended("q2")
        assert await service.turns() == [
            ("user", "zero", "stop"), ("assistant", "some words", "end_turn"),
            ("user", "one", "stop"), ("assistant", "", "canceled"),
            ("user", "two", "stop"), ("assistant", "", "canceled"),
        ]  # fmt: skip

"""The reference race through HTTP: a cancel lands after a prompt was accepted, and before its run has entered."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from tests.doubles.coder import RecordingModel, coder
from tests.doubles.engine import ScriptedAgent
from tests.doubles.gate import Gate
from tests.doubles.openai_server import open_openai_server
from tests.http.service import Service, open_service, open_socket_service, payload, read_to_end
from tests.web.api import read_until

BY = pytest.mark.parametrize("by_run", [False, True], ids=["by session", "by run"])
CANCELED_TURN = [("user", "hi", "stop"), ("assistant", "", "canceled")]


async def endings_on_stream(service: Service, run_id: str) -> list[dict[str, Any]]:
    """The terminal events of a run that a stream of the workspace tells, up to the end of a later run."""
    later = await service.create_session("later")
    async with service.client.stream("GET", f"{service.w}/events?cursor=earliest") as stream:
        await service.client.post(f"{service.w}/agent", {"session_id": later, "prompt": "x", "run_id": "later"})
        events: list[dict[str, Any]] = []
        while not events or payload(events[-1]).get("run_id") != "later":
            events += await read_until(stream, "run_complete")
    endings = [payload(event) for event in events if event["type"] == "run_complete"]
    return [ending for ending in endings if ending["run_id"] == run_id]


async def check_canceled_on_entry(service: Service, run_id: str) -> None:
    """What a caller finds of a run that was canceled before it entered."""
    run = await service.ended(run_id)
    assert run["state"] == "canceled"
    assert run["started_at"] is None
    assert run["cancel_requested_at"]
    assert await service.turns() == CANCELED_TURN
    (ending,) = await endings_on_stream(service, run_id)
    assert (ending["state"], ending["cancelled"], ending.get("error", "")) == ("canceled", True, "")
    async with service.client.stream("GET", f"{service.w}/runs/{run_id}/events") as stream:
        own = await read_to_end(stream)
    assert [event["type"] for event in own].count("run_complete") == 1
    assert own[-1]["type"] == "run_complete"


@BY
async def test_r09_a_cancel_before_entry_leaves_a_canceled_turn_and_calls_no_model(
    tmp_path: Path, autojump_clock: object, by_run: bool
) -> None:
    gate, model = Gate(), RecordingModel()
    async with open_service(tmp_path, before_entry=gate.pass_through, **coder(model)) as service:
        answer = await service.send("hi", run_id="r1")
        assert (answer.status, answer.json()["state"]) == (202, "accepted")
        await gate.reached()
        assert (await service.cancel("r1" if by_run else None))["canceled"] == ["r1"]
        assert await service.turns() == []
        gate.open()
        with trio.fail_after(5):
            await check_canceled_on_entry(service, "r1")
        assert [request.session_id for request in model.requests if request.session_id == service.session_id] == []


@BY
async def test_r09_the_very_first_prompt_after_a_cold_start(tmp_path: Path, by_run: bool) -> None:
    """Over sockets and on disk, with a model that would be called over HTTP. The prompt is the first request but for
    those that make its workspace and its session."""
    gate = Gate()
    async with open_openai_server() as openai:
        environ = {"COUNTERMAND_MODEL": "openai/scripted", "OPENAI_BASE_URL": openai.base_url, "OPENAI_API_KEY": "k"}
        async with (
            open_socket_service(
                tmp_path, data_dir=tmp_path / "data", environ=environ, with_agent=False, before_entry=gate.pass_through
            ) as service,
            service.connect() as caller,
        ):
            body = {"session_id": service.session_id, "prompt": "hi", "run_id": "r1"}
            assert (await caller.request("POST", f"{service.w}/agent", body)).status == 202
            await gate.reached()
            path = "runs/r1/cancel" if by_run else f"agent/sessions/{service.session_id}/cancel"
            assert (await caller.request("POST", f"{service.w}/{path}")).json()["canceled"] == ["r1"]
            gate.open()
            await caller.send("GET", f"{service.w}/runs/r1/events")
            stream = await (await caller.answer()).read()
            assert stream.has_ended_properly
            assert stream.body.count(b'{"type":"run_complete"') == 1
            assert await service.turns() == CANCELED_TURN
            assert [ending["state"] for ending in (await service.endings())["r1"]] == ["canceled"]
            assert openai.requests == []


class Behind:
    """An active run, held by its agent; and what is accepted behind it, held before it enters."""

    def __init__(self) -> None:
        self.active, self.entry = Gate(), Gate()
        self.agent = ScriptedAgent(self.respond)

    async def respond(self, turn: Any) -> None:
        turn.say(f"You said: {turn.prompt.text}")
        if turn.run_id == "active":
            await self.active.pass_through()

    async def before_entry(self, run: Any) -> None:
        if run.record.id == "behind":
            await self.entry.pass_through()

    async def begin(self, service: Service) -> None:
        await service.send("first", run_id="active")
        await self.active.reached()
        await service.send("hi", run_id="behind")
        await self.entry.reached()


async def test_r07_a_session_cancel_takes_the_active_run_and_the_one_accepted_behind_it(
    tmp_path: Path, autojump_clock: object
) -> None:
    behind = Behind()
    async with open_service(tmp_path, agent=behind.agent, before_entry=behind.before_entry) as service:
        await behind.begin(service)
        assert (await service.cancel())["canceled"] == ["active", "behind"]
        behind.entry.open()
        assert [(await service.ended(each))["state"] for each in ("active", "behind")] == ["canceled", "canceled"]
        assert await service.turns() == [
            ("user", "first", "stop"),
            ("assistant", "You said: first", "canceled"),
            *CANCELED_TURN,
        ]
        endings = await service.endings()
        assert {name: len(each) for name, each in endings.items()} == {"active": 1, "behind": 1}
        assert [turn.run_id for turn in behind.agent.turns] == ["active"]


async def test_r12_the_run_accepted_behind_an_active_one_is_canceled_alone(
    tmp_path: Path, autojump_clock: object
) -> None:
    behind = Behind()
    async with open_service(tmp_path, agent=behind.agent, before_entry=behind.before_entry) as service:
        await behind.begin(service)
        assert (await service.cancel("behind"))["canceled"] == ["behind"]
        behind.entry.open()
        assert (await service.ended("behind"))["state"] == "canceled"
        assert (await service.run("active"))["state"] == "active"
        behind.active.open()
        assert (await service.ended("active"))["state"] == "completed"
        assert await service.turns() == [
            ("user", "first", "stop"),
            ("assistant", "You said: first", "end_turn"),
            *CANCELED_TURN,
        ]
        assert [turn.run_id for turn in behind.agent.turns] == ["active"]


async def test_r12_the_queued_run_alone_and_the_one_behind_it_runs(tmp_path: Path, autojump_clock: object) -> None:
    behind = Behind()
    behind.entry.open()
    async with open_service(tmp_path, agent=behind.agent, before_entry=behind.before_entry) as service:
        await behind.begin(service)
        await service.send("last", run_id="last")
        await trio.testing.wait_all_tasks_blocked()
        assert (await service.run("behind"))["state"] == "queued"
        canceled = await service.cancel("behind")
        assert canceled["canceled"] == ["behind"]
        assert (await service.ended("behind"))["state"] == "canceled"
        behind.active.open()
        assert (await service.ended("last"))["state"] == "completed"
        assert [turn.run_id for turn in behind.agent.turns] == ["active", "last"]
        assert {name: len(each) for name, each in (await service.endings()).items()} == {
            "active": 1, "behind": 1, "last": 1
        }  # fmt: skip


async def test_r08_a_prompt_that_is_sent_after_the_cancel_runs(tmp_path: Path, autojump_clock: object) -> None:
    gate = Gate()
    async with open_service(tmp_path, before_entry=gate.pass_through) as service:
        await service.send("hi", run_id="r1")
        await gate.reached()
        assert (await service.cancel())["canceled"] == ["r1"]
        await service.send("again", run_id="r2")
        assert gate.arrivals == 2
        gate.open()
        assert (await service.ended("r1"))["state"] == "canceled"
        assert (await service.ended("r2"))["state"] == "completed"
        assert (await service.cancel())["canceled"] == []
        assert await service.turns() == [
            *CANCELED_TURN,
            ("user", "again", "stop"),
            ("assistant", "You said: again", "end_turn"),
        ]

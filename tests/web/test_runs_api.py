"""Runs over HTTP: accepting, retrying, refusing, listing, waiting, canceling."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.agents.protocol import Turn
from tests.doubles.engine import ScriptedAgent
from tests.doubles.gate import Gate
from tests.web.api import open_api


def held(gate: Gate) -> ScriptedAgent:
    """An agent that stops at a gate in each turn."""

    async def respond(turn: Turn) -> None:
        await gate.pass_through()
        turn.say(f"You said: {turn.prompt.text}")

    return ScriptedAgent(respond)


async def test_r02_a_prompt_that_is_accepted_is_there_before_the_answer(tmp_path: Path, autojump_clock: object) -> None:
    gate = Gate()
    async with open_api(tmp_path, agent=held(gate)) as api:
        answer = await api.send("hi")
        assert answer.status == 202
        body = answer.json()
        assert set(body) == {"run_id", "session_id", "state", "seq"}
        assert (body["state"], body["seq"], body["session_id"]) == ("accepted", 1, api.session_id)
        assert answer.headers["location"] == f"{api.w}/runs/{body['run_id']}"
        assert (await api.client.get(answer.headers["location"])).json()["prompt"] == "hi"
        gate.open()


@pytest.mark.parametrize("how", ["run_id", "key"])
async def test_r06_the_same_request_again_gets_the_same_run_and_another_one_is_refused(
    tmp_path: Path, autojump_clock: object, how: str
) -> None:
    body = {"prompt": "hi", "run_id": "r1"} if how == "run_id" else {"prompt": "hi"}
    headers = {"Idempotency-Key": "k1"} if how == "key" else {}
    async with open_api(tmp_path) as api:
        target = f"{api.w}/agent"
        first = await api.client.post(target, {"session_id": api.session_id, **body}, headers=headers)
        run = await api.ended(first.json()["run_id"])
        again = await api.client.post(target, {"session_id": api.session_id, **body}, headers=headers)
        assert (again.status, again.json()["run_id"], again.json()["state"]) == (202, run["id"], "completed")
        other = await api.client.post(target, {"session_id": api.session_id, **body, "prompt": "ho"}, headers=headers)
        assert (other.status, other.json()["type"]) == (422, "idempotency_conflict")
        assert other.json()["field"] == ("run_id" if how == "run_id" else "Idempotency-Key")
        assert len((await api.client.get(f"{api.w}/runs")).json()["runs"]) == 1


@pytest.mark.parametrize(
    ("more", "if_busy"),
    [
        ({}, "steer"),
        ({"run_id": "r2"}, "enqueue"),
        ({"if_busy": "enqueue"}, "enqueue"),
        ({"if_busy": "steer"}, "steer"),
    ],
)
async def test_r15_what_is_not_said_of_a_busy_session_is_taken_as_crush_means_it(
    tmp_path: Path, autojump_clock: object, more: dict[str, Any], if_busy: str
) -> None:
    async with open_api(tmp_path) as api:
        run = await api.ended((await api.send("hi", **more)).json()["run_id"])
        assert run["if_busy"] == if_busy


async def test_r15_a_busy_session_can_refuse_and_r16_a_queue_can_be_full(
    tmp_path: Path, autojump_clock: object
) -> None:
    gate = Gate()
    async with open_api(tmp_path, agent=held(gate), queue_per_session=2) as api:
        await api.send("first", run_id="r1")
        await gate.reached()
        refused = await api.send("second", if_busy="reject")
        assert (refused.status, refused.json()["type"]) == (409, "session_busy")
        for run_id in ("r2", "r3"):
            assert (await api.send("wait", run_id=run_id)).status == 202
        await trio.testing.wait_all_tasks_blocked()
        full = await api.send("one too many", run_id="r4")
        assert (full.status, full.json()["type"]) == (429, "queue_full")
        assert int(full.headers["retry-after"]) > 0
        gate.open()
        assert (await api.ended("r3"))["state"] == "completed"
        assert (await api.client.get(f"{api.w}/runs/r4")).status == 404


async def test_r05_a_caller_that_hangs_up_leaves_its_run_alone(tmp_path: Path, autojump_clock: object) -> None:
    gate = Gate()
    async with open_api(tmp_path, agent=held(gate)) as api:
        for moments in range(8):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(api.send, f"prompt {moments}", run_id=f"r{moments}"))
                for _ in range(moments * 2):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
        gate.open()
        for run in (await api.client.get(f"{api.w}/runs")).json()["runs"]:
            assert (await api.ended(run["id"]))["state"] == "completed"


async def test_a_cancel_names_what_it_covers(tmp_path: Path, autojump_clock: object) -> None:
    gate = Gate()
    async with open_api(tmp_path, agent=held(gate)) as api:
        cancel = f"{api.w}/agent/sessions/{api.session_id}/cancel"
        assert (await api.client.post(cancel)).json() == {"canceled": []}
        for run_id in ("r1", "r2"):
            await api.send("hi", run_id=run_id)
        await gate.reached()
        assert sorted((await api.client.post(cancel)).json()["canceled"]) == ["r1", "r2"]
        for run_id in ("r1", "r2"):
            run = await api.ended(run_id)
            assert (run["state"], bool(run["cancel_requested_at"])) == ("canceled", True)
        assert (await api.client.post(cancel)).json() == {"canceled": []}


async def test_r12_one_run_is_canceled_alone_and_one_that_has_ended_says_how(
    tmp_path: Path, autojump_clock: object
) -> None:
    gate = Gate()
    async with open_api(tmp_path, agent=held(gate)) as api:
        for run_id in ("r1", "r2"):
            await api.send("hi", run_id=run_id)
        await gate.reached()
        answer = (await api.client.post(f"{api.w}/runs/r2/cancel")).json()
        assert answer["canceled"] == ["r2"]
        gate.open()
        assert (await api.ended("r1"))["state"] == "completed"
        assert (await api.ended("r2"))["state"] == "canceled"
        late = (await api.client.post(f"{api.w}/runs/r1/cancel")).json()
        assert late == {"canceled": [], "state": "completed"}


async def test_waiting_for_a_run_ends_with_it_or_with_the_time(tmp_path: Path, autojump_clock: object) -> None:
    async def respond(turn: Turn) -> None:
        await trio.sleep(25)

    async with open_api(tmp_path, agent=ScriptedAgent(respond)) as api:
        await api.send("hi", run_id="r1")
        started = trio.current_time()
        early = (await api.client.get(f"{api.w}/runs/r1?wait_s=10")).json()
        assert (early["state"], early["ended_at"], trio.current_time() - started) == ("active", None, 10)
        ended = (await api.client.get(f"{api.w}/runs/r1?wait_s=60")).json()
        assert ended["state"] == "completed"
        assert trio.current_time() - started == pytest.approx(25, abs=1)


async def test_runs_are_listed_by_page_state_and_session(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        for number in range(5):
            await api.ended((await api.send(f"prompt {number}", run_id=f"r{number}")).json()["run_id"])

        async def listed(query: str) -> dict[str, Any]:
            found: dict[str, Any] = (await api.client.get(f"{api.w}/runs{query}")).json()
            return found

        assert [run["id"] for run in (await listed(""))["runs"]] == ["r4", "r3", "r2", "r1", "r0"]
        seen: list[str] = []
        following: int | None = None
        while True:
            page = await listed("?limit=2" + (f"&before={following}" if following else ""))
            seen += [run["id"] for run in page["runs"]]
            if (following := page["next"]) is None:
                break
        assert seen == ["r4", "r3", "r2", "r1", "r0"]
        assert (await listed("?limit=5"))["next"] is None
        assert (await listed("?state=canceled&state=failed"))["runs"] == []
        assert len((await listed("?state=canceled&state=completed"))["runs"]) == 5
        assert len((await listed(f"?session_id={api.session_id}"))["runs"]) == 5
        assert (await listed("?session_id=none"))["type"] == "session_not_found"


async def test_r04_a_server_that_is_leaving_accepts_nothing_and_says_so(tmp_path: Path, autojump_clock: object) -> None:
    gate = Gate()
    async with open_api(tmp_path, agent=held(gate)) as api:
        await api.send("hi", run_id="r1")
        await gate.reached()
        assert (await api.client.get("/v1/ready")).json() == {"ready": True}
        api.backend.begin_shutdown(60)
        for method, target, body in (
            ("GET", "/v1/ready", None),
            ("POST", f"{api.w}/agent", {"session_id": api.session_id, "prompt": "late"}),
            ("POST", "/v1/workspaces", {"path": str(tmp_path)}),
            ("DELETE", api.w, None),  # what waits goes on at the next start: nobody may be told that it has ended
        ):
            answer = await api.client.request(method, target, json=body)
            assert (answer.status, answer.json()["type"]) == (503, "server_stopping"), target
            assert int(answer.headers["retry-after"]) > 0
        assert (await api.client.get("/v1/health")).status == 200
        assert (await api.client.get(f"{api.w}/runs/r1")).json()["state"] == "active"
        gate.open()
        await api.backend.wait_stopped()

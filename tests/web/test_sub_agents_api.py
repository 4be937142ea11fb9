"""Sub-agents over HTTP: child sessions as Crush's client draws them, and what cannot be done to them."""

from pathlib import Path
from urllib.parse import quote

import pytest
import trio

from engine.agents.protocol import Turn
from engine.records.run import Purpose
from tests.doubles.engine import ScriptedAgent
from tests.doubles.gate import Gate
from tests.doubles.sub_agents import tools
from tests.web.api import CLIENT, Api, open_api, read_until


def asking(gate: Gate) -> ScriptedAgent:
    """An agent that lets another one look, which stands at the gate."""

    async def respond(turn: Turn) -> None:
        if turn.prompt.purpose is Purpose.DELEGATED:
            turn.say("It is ")
            await gate.pass_through()
            turn.say("here.")
            return
        turn.begin_tool_call("ask", "agent")
        turn.append_tool_input("ask", '{"prompt": "look"}')
        await turn.call_tool(turn.end_tool_call("ask"))
        await turn.next_step()
        turn.say("Done.")

    return ScriptedAgent(respond)


async def child_of(api: Api) -> str:
    """The id of the child session, as a client makes it from the call."""
    messages = (await api.client.get(f"{api.w}/sessions/{api.session_id}/messages")).json()
    call = next(message for message in messages if any(part["type"] == "tool_call" for part in message["parts"]))
    return f"{call['id']}$$ask"


async def test_a_child_session_is_told_and_read_as_crush_knows_it(tmp_path: Path, autojump_clock: object) -> None:
    agent = asking(Gate(is_open=True))
    async with open_api(tmp_path, agent=agent, tools=tools()) as api:
        async with api.client.stream("GET", f"{api.w}/events?client_id={CLIENT}") as stream:
            await api.send(run_id="r")
            events = [event for event in await read_until(stream, "run_complete")]
        child = await child_of(api)
        sessions = [event["payload"] for event in events if event["type"] == "session"]
        made = next(each["payload"] for each in sessions if each["payload"]["id"] == child)
        assert made["parent_session_id"] == api.session_id
        inner = [event["payload"]["payload"] for event in events if event["type"] == "message"]
        told = [message for message in inner if message["session_id"] == child]
        assert told[0]["role"] == "user"
        assert told[-1]["parts"][0]["data"]["text"] == "It is here."
        assert [event["payload"]["payload"]["run_id"] for event in events if event["type"] == "run_complete"] == ["r"]
        session = (await api.client.get(f"{api.w}/sessions/{quote(child)}")).json()
        assert (session["parent_session_id"], session["message_count"]) == (api.session_id, 2)
        assert [each["id"] for each in (await api.client.get(f"{api.w}/sessions")).json()] == [api.session_id]
        assert len((await api.client.get(f"{api.w}/sessions/{child}/messages")).json()) == 2
        said = (await api.client.get(f"{api.w}/messages/user")).json()
        assert {message["session_id"] for message in said} == {api.session_id}


@pytest.mark.parametrize("what", ["prompt", "steer", "summarize", "delete"])
async def test_nobody_speaks_in_a_child_session_or_deletes_it(
    tmp_path: Path, autojump_clock: object, what: str
) -> None:
    gate = Gate()
    async with open_api(tmp_path, agent=asking(gate), tools=tools()) as api:
        await api.send(run_id="r")
        await gate.reached()
        await trio.sleep(1)
        child = await child_of(api)
        match what:
            case "summarize":
                answer = await api.client.post(f"{api.w}/agent/sessions/{child}/summarize")
            case "delete":
                answer = await api.client.delete(f"{api.w}/sessions/{child}")
            case _:
                if_busy = "steer" if what == "steer" else "enqueue"
                answer = await api.client.post(
                    f"{api.w}/agent", {"session_id": child, "prompt": "hi", "if_busy": if_busy}
                )
        assert (answer.status, answer.json()["type"], answer.json()["field"]) == (409, "child_session", "session_id")
        assert api.session_id in answer.json()["message"]
        canceled = await api.client.post(f"{api.w}/agent/sessions/{child}/cancel")
        assert (canceled.status, canceled.json()) == (200, {"canceled": []})
        assert (await api.client.get(f"{api.w}/sessions/{child}")).json()["is_busy"] is False
        gate.open()
        assert (await api.ended("r"))["state"] == "completed"

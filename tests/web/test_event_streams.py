"""Event streams through the whole service: what is told, from where, to whom, and what holds a claim."""

from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trio

from engine.agents.protocol import Turn
from engine.records.ids import WorkspaceId
from tests.doubles.asgi_client import Stream
from tests.doubles.engine import ScriptedAgent
from tests.doubles.gate import Gate
from tests.web.api import CLIENT, OTHER_CLIENT, Api, open_api, read_until

PLAIN_TYPES = {"message", "session", "run_complete", "agent_event", "config_changed"}


# A test gets the MockClock by naming it itself: pytest-trio does not see what its fixtures ask for.


def ids_of(events: list[dict[str, Any]]) -> list[int]:
    return [int(str(event["id"])) for event in events if "id" in event]


async def test_the_head_and_a_blank_line_come_at_once(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api, api.client.stream("GET", f"{api.w}/events?client_id={CLIENT}") as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert "no-cache" in stream.headers["cache-control"]
        assert "content-length" not in stream.headers
        assert "content-encoding" not in stream.headers
        assert await stream.receive_chunk() == b"\n"


async def test_a_client_that_saw_its_200_is_attached_and_misses_nothing(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api, api.client.stream("GET", f"{api.w}/events?client_id={CLIENT}") as stream:
        said = await api.client.post(f"{api.w}/current-session?client_id={CLIENT}", {"session_id": api.session_id})
        assert said.status == 200
        session = (await api.client.get(f"{api.w}/sessions/{api.session_id}")).json()
        assert session["attached_clients"] == 1
        await api.send("hi", run_id="r1")
        events = await read_until(stream, "run_complete")
        assert events[0]["payload"]["payload"]["role"] == "user"


async def test_crushs_stream_has_only_what_crush_knows_and_no_numbers(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api, api.client.stream("GET", f"{api.w}/events?client_id={CLIENT}") as stream:
        await api.send("hi", run_id="r1")
        events = await read_until(stream, "run_complete")
        assert {event["type"] for event in events} <= PLAIN_TYPES
        assert ids_of(events) == []
        done = events[-1]["payload"]["payload"]
        assert (done["run_id"], done["text"]) == ("r1", "You said: hi")
        assert done["message_id"]


@pytest.mark.parametrize(
    "query", ["", f"?client_id={CLIENT}&cursor=latest", "?deltas=1", f"?client_id={CLIENT}&deltas=1"]
)
async def test_other_streams_are_told_of_runs_too(tmp_path: Path, autojump_clock: object, query: str) -> None:
    async with open_api(tmp_path) as api, api.client.stream("GET", f"{api.w}/events{query}") as stream:
        await api.send("hi", run_id="r1")
        events = await read_until(stream, "run_complete")
        states = [event["payload"]["payload"]["state"] for event in events if event["type"] == "run"]
        assert states == ["accepted", "active", "completed"]
        assert bool(ids_of(events)) == ("cursor" in query)


async def test_r28_a_stream_goes_on_after_the_number_it_is_given_without_loss_or_repeat(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:
        await api.ended((await api.send("one")).json()["run_id"])
        async with api.client.stream("GET", f"{api.w}/events?cursor=earliest") as stream:
            first = await read_until(stream, "run_complete")
        assert ids_of(first) == list(range(1, len(first) + 1))
        await api.ended((await api.send("two")).json()["run_id"])
        # As a browser does it: the address it began with, and the last number that it saw.
        last = {"Last-Event-ID": str(first[2]["id"])}
        async with api.client.stream("GET", f"{api.w}/events?cursor=earliest", headers=last) as stream:
            again = await read_until(stream, "run_complete")
            again += await read_until(stream, "run_complete")
            assert ids_of(again) == list(range(4, 4 + len(again)))
            await api.send("three")
            live = await read_until(stream, "run_complete")
            assert ids_of(live)[0] == ids_of(again)[-1] + 1


async def test_a_reader_that_is_cut_off_before_its_first_event_knows_where_it_was(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:
        await api.ended((await api.send("one")).json()["run_id"])
        async with api.client.stream("GET", f"{api.w}/events?cursor=latest") as stream:
            frame = await stream.receive_frame()
        assert frame.startswith("id: ")
        await api.send("two", run_id="r2")
        last = {"Last-Event-ID": frame.removeprefix("id: ")}
        async with api.client.stream("GET", f"{api.w}/events?cursor=latest", headers=last) as stream:
            event = await stream.receive_event()
        assert (event["type"], event["payload"]["payload"]["id"]) == ("run", "r2")


async def test_r28_a_number_that_is_not_in_the_log_gets_a_reset_first(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api, api.client.stream("GET", f"{api.w}/events?cursor=4711") as stream:
        event = await stream.receive_event()
        assert event["type"] == "reset"
        assert event["payload"]["payload"]["requested"] == 4711


async def test_text_comes_as_deltas_to_those_who_ask(tmp_path: Path, autojump_clock: object) -> None:
    gate = Gate()

    async def respond(turn: Turn) -> None:
        turn.say("Hel")
        await trio.sleep(1)
        turn.say("lo")
        await gate.pass_through()

    async with (
        open_api(tmp_path, agent=ScriptedAgent(respond)) as api,
        api.client.stream("GET", f"{api.w}/events?deltas=1") as stream,
    ):
        await api.send("hi", run_id="r1")
        await read_until(stream, "message_delta")
        second = (await read_until(stream, "message_delta"))[-1]["payload"]["payload"]
        gate.open()
        done = (await read_until(stream, "run_complete"))[-1]["payload"]["payload"]
    assert (second["offset"], second["text"], second["part_type"]) == (3, "lo", "text")
    assert (second["message_id"], done["text"]) == (done["message_id"], "Hello")


async def test_a_stream_that_nobody_reads_any_more_is_left_with_its_claim(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:
        workspace = api.backend.workspace(api.w.rpartition("/")[2])
        async with api.client.stream("GET", f"{api.w}/events?client_id={CLIENT}"):
            async with api.client.stream("GET", f"{api.w}/events?client_id={OTHER_CLIENT}"):
                assert workspace.claims.statistics().streams == 2
                assert workspace.statistics().feeds == 2
            assert workspace.claims.statistics().streams == 1
        assert workspace.claims.statistics().streams == 0
        assert workspace.statistics().feeds == 0


async def test_a_caller_that_hangs_up_before_the_head_leaves_nothing_behind(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:
        workspace = api.backend.workspace(api.w.rpartition("/")[2])
        for moments in range(12):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(api.client.get, f"{api.w}/events?client_id={CLIENT}&cursor=earliest")
                for _ in range(moments):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert workspace.statistics().feeds == 0
            assert workspace.claims.statistics().streams == 0


async def test_watching_holds_no_claim(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api, api.client.stream("GET", f"{api.w}/events"):
        assert api.backend.workspace(api.w.rpartition("/")[2]).claims.statistics().clients == 0


async def test_a_stream_ends_properly_when_its_workspace_closes(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api, api.client.stream("GET", f"{api.w}/events?client_id={CLIENT}") as stream:
        assert (await api.client.delete(api.w)).status == 200
        assert (await stream.read()).strip() == b""
        assert stream.has_ended_properly
        assert (await api.client.get(f"{api.w}/events")).status == 404


async def test_a_stream_ends_properly_when_the_server_stops(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api, api.client.stream("GET", f"{api.w}/events?cursor=latest") as stream:
        api.backend.begin_shutdown(0)
        await stream.read()
        assert stream.has_ended_properly


async def test_a_stream_outlives_every_timeout_of_the_framework(tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api, api.client.stream("GET", f"{api.w}/events?client_id={CLIENT}") as stream:
        for _ in range(10):
            await stream.receive_chunk()
        assert trio.current_time() >= 120
        await api.send("still there?", run_id="r1")
        await read_until(stream, "run_complete")


@pytest.mark.parametrize("query", ["events?client_id=" + CLIENT, "runs/r1/events"])
async def test_asking_for_the_head_alone_opens_nothing(tmp_path: Path, autojump_clock: object, query: str) -> None:
    async with open_api(tmp_path) as api:
        await api.ended((await api.send(run_id="r1")).json()["run_id"])
        answer = await api.client.request("HEAD", f"{api.w}/{query}")
        assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/event-stream", b"")
        assert api.backend.workspace(api.w.rpartition("/")[2]).claims.statistics().clients == 0


# One run


async def whole(api: Api, target: str, **headers: str) -> tuple[list[dict[str, Any]], Stream]:
    async with api.client.stream("GET", target, headers=headers) as stream:
        with trio.fail_after(60):
            events = [await stream.receive_event()]
            with suppress(trio.EndOfChannel):
                while True:
                    events.append(await stream.receive_event())
        return events, stream


async def test_the_stream_of_a_run_has_all_of_it_from_its_acceptance_and_ends(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:
        await api.ended((await api.send("before", run_id="r0")).json()["run_id"])
        await api.ended((await api.send("hi", run_id="r1")).json()["run_id"])
        events, stream = await whole(api, f"{api.w}/runs/r1/events")
        assert stream.has_ended_properly
        assert events[0]["type"] == "run"
        assert events[-1]["type"] == "run_complete"
        assert {event["payload"]["payload"]["run_id"] for event in events if event["type"] == "run_complete"} == {"r1"}
        assert ids_of(events) == sorted(ids_of(events))


async def test_the_stream_of_a_run_holds_a_claim_for_the_client_that_reads_it(
    tmp_path: Path, autojump_clock: object
) -> None:
    gate = Gate()

    async def respond(turn: Turn) -> None:
        await gate.pass_through()

    async with open_api(tmp_path, agent=ScriptedAgent(respond)) as api:
        api.w = f"/v1/workspaces/{(await api.create_workspace(tmp_path.parent, client_id=CLIENT))['id']}"
        api.session_id = await api.create_session()
        await api.send("hi", run_id="r1")
        async with api.client.stream("GET", f"{api.w}/runs/r1/events?client_id={CLIENT}") as stream:
            await trio.sleep(300)
            assert (await api.client.get(f"{api.w}/runs/r1")).json()["state"] == "active"
            gate.open()
            events = await read_until(stream, "run_complete")
            assert "run" in {event["type"] for event in events}
            assert ids_of(events)
        await trio.sleep(20)
        assert (await api.client.get(api.w)).status == 404


async def test_the_stream_of_a_run_that_goes_on_waits_for_its_end(tmp_path: Path, autojump_clock: object) -> None:
    gate = Gate()

    async def respond(turn: Turn) -> None:
        await gate.pass_through()
        turn.say("done")

    async with open_api(tmp_path, agent=ScriptedAgent(respond)) as api:
        await api.send("hi", run_id="r1")
        await gate.reached()
        async with api.client.stream("GET", f"{api.w}/runs/r1/events") as stream:
            await read_until(stream, "message")
            gate.open()
            events = await read_until(stream, "run_complete")
            assert events[-1]["payload"]["payload"]["text"] == "done"
            assert await stream.read() == b""
            assert stream.has_ended_properly


async def test_a_reader_that_has_seen_the_end_of_a_run_is_told_how_it_ended_and_not_kept_waiting(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:
        await api.ended((await api.send("hi", run_id="r1")).json()["run_id"])
        events, _ = await whole(api, f"{api.w}/runs/r1/events")
        last = str(ids_of(events)[-1])
        for number, types in ((last, ["run"]), (str(int(last) + 1000), ["reset", "run"])):
            rest, stream = await whole(api, f"{api.w}/runs/r1/events", **{"Last-Event-ID": number})
            assert stream.has_ended_properly
            assert [event["type"] for event in rest] == types
            assert rest[-1]["payload"]["payload"]["state"] == "completed"
        later, _ = await whole(api, f"{api.w}/runs/r1/events?cursor={int(last) - 1}")
        assert [event["type"] for event in later] == ["run_complete"]


async def test_r28_the_stream_of_a_run_that_was_pruned_begins_with_a_reset(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:
        await api.ended((await api.send("hi", run_id="r1")).json()["run_id"])
        workspace_id = WorkspaceId(api.w.rpartition("/")[2])
        await api.backend.store.prune_events(workspace_id, before_us=2**62, keep=1, limit=9999)
        events, _ = await whole(api, f"{api.w}/runs/r1/events")
        assert [event["type"] for event in events] == ["reset", "run_complete"]
        await api.backend.store.prune_events(workspace_id, before_us=2**62, keep=0, limit=9999)
        events, stream = await whole(api, f"{api.w}/runs/r1/events")
        assert [event["type"] for event in events] == ["reset", "run"]
        assert stream.has_ended_properly


BAD_NUMBERS = ["abc", "-1", "1.5", "0x10", "1e3", "²", "9" * 20, "1 2"]


@pytest.mark.parametrize("path", ["events", "runs/r1/events"])
async def test_r28_a_number_that_is_none_is_refused_by_the_name_of_where_it_stands(
    tmp_path: Path, path: str, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:
        await api.ended((await api.send("hi", run_id="r1")).json()["run_id"])
        for number in BAD_NUMBERS:
            answer = await api.client.get(f"{api.w}/{path}?cursor={quote(number)}")
            assert (answer.status, answer.json()["field"]) == (400, "cursor"), number
            if number.isascii():
                answer = await api.client.get(f"{api.w}/{path}?cursor=earliest", headers={"Last-Event-ID": number})
                assert (answer.status, answer.json()["field"]) == (400, "Last-Event-ID"), number
        answer = await api.client.get(f"{api.w}/{path}?cursor=nonsense", headers={"Last-Event-ID": "1"})
        assert answer.status == 400, "what is wrong is wrong, also where it would not count"


async def test_r28_the_header_counts_before_the_cursor_and_an_empty_one_does_not(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_api(tmp_path) as api:
        await api.ended((await api.send("hi", run_id="r1")).json()["run_id"])
        for path in ("events", "runs/r1/events"):
            for header, first in (("5", 6), ("", 4)):
                target = f"{api.w}/{path}?cursor=3"
                async with api.client.stream("GET", target, headers={"Last-Event-ID": header}) as stream:
                    assert int((await stream.receive_event())["id"]) == first, (path, header)

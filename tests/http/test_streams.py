"""Event streams through HTTP, read by clients that come late, break off, come back, or do not read at all."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from engine.events.local_bus import BUFFER
from tests.doubles.asgi_client import Stream
from tests.doubles.engine import ScriptedAgent
from tests.doubles.gate import Gate
from tests.http.service import Service, SocketService, open_service, open_socket_service, payload, read_to_end, text_of
from tests.web.api import CLIENT, read_until

SUBSCRIBERS = 1000
WORDS = ("née ", "𐀀 ", "word ", "🙂", "\n", "a longer piece of what is said, ")


class Screen:
    """What a client shows that reads with `deltas=1`: whole messages when they come, and else what is added to them."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.messages: dict[str, list[str]] = {}
        self.endings: list[dict[str, Any]] = []

    def show(self, events: Iterable[dict[str, Any]]) -> None:
        for event in events:
            if "id" in event:
                self.numbers.append(int(event["id"]))
            found = payload(event)
            match event["type"]:
                case "message":
                    self.messages[found["id"]] = [words_of(part) for part in found["parts"]]
                case "message_delta":
                    self.add(found)
                case "run_complete":
                    self.endings.append(found)
                case "reset":
                    raise AssertionError("nothing was pruned")

    def add(self, delta: dict[str, Any]) -> None:
        parts = self.messages[delta["message_id"]]
        parts += [""] * (delta["part"] + 1 - len(parts))
        assert delta["offset"] == len(parts[delta["part"]]), "a delta does not follow on what is shown"
        parts[delta["part"]] += delta["text"]


def words_of(part: dict[str, Any]) -> str:
    """The text of a part, of whichever kind."""
    return str(part["data"].get("text", part["data"].get("thinking", "")))


class Talker:
    """An agent that thinks and talks, in steps, with pauses: more or less than a flush apart."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.agent = ScriptedAgent(self.respond)

    async def respond(self, turn: Any) -> None:
        for step in range(self.random.randint(1, 3)):
            if step:
                await turn.next_step()
            await self.talk(turn.think, 5)
            await self.talk(turn.say, 30)

    async def talk(self, say: Any, most: int) -> None:
        for _ in range(self.random.randint(0, most)):
            say(self.random.choice(WORDS))
            await trio.sleep(self.random.choice((0, 0.01, 0.05)))


async def check_shown(service: Service, screen: Screen) -> None:
    """The screen shows what is stored, and each number came once."""
    messages = (await service.client.get(f"{service.w}/sessions/{service.session_id}/messages")).json()
    shown = {name: "".join(parts) for name, parts in screen.messages.items()}
    assert shown == {message["id"]: "".join(map(words_of, message["parts"])) for message in messages}
    assert screen.numbers == list(range(screen.numbers[0], screen.numbers[0] + len(screen.numbers)))
    texts = {message["id"]: text_of(message) for message in messages}
    assert all(ending["text"] == texts[ending["message_id"]] for ending in screen.endings)


# Deltas


@pytest.mark.parametrize("seed", range(6))
async def test_r28_deltas_rebuild_exactly_the_final_text(tmp_path: Path, autojump_clock: object, seed: int) -> None:
    screen = Screen()
    async with (
        open_service(tmp_path, agent=Talker(seed).agent) as service,
        service.client.stream("GET", f"{service.w}/events?cursor=earliest&deltas=1") as stream,
    ):
        for number in range(3):
            await service.send("talk", run_id=f"r{number}")
            screen.show(await read_until(stream, "run_complete"))
        await check_shown(service, screen)
        assert [ending["run_id"] for ending in screen.endings] == ["r0", "r1", "r2"]


@pytest.mark.parametrize("seed", range(6))
async def test_r28_deltas_rebuild_the_text_for_a_client_that_keeps_coming_back(
    tmp_path: Path, autojump_clock: object, seed: int
) -> None:
    """It breaks off in the middle of what is being said, stays away for a while, and goes on after its last number."""
    pick = random.Random(seed)
    screen = Screen()
    async with open_service(tmp_path, agent=Talker(seed).agent) as service:
        for number in range(3):
            await service.send("talk", run_id=f"r{number}")
        while len(screen.endings) < 3:
            last = {"Last-Event-ID": str(screen.numbers[-1])} if screen.numbers else {}
            target = f"{service.w}/events?cursor=earliest&deltas=1"
            async with service.client.stream("GET", target, headers=last) as stream:
                for _ in range(pick.randint(1, 12)):
                    screen.show([await stream.receive_event()])
                    if len(screen.endings) == 3:
                        break
            await trio.sleep(pick.choice((0, 0.02, 0.2)))
        await check_shown(service, screen)
        assert [ending["run_id"] for ending in screen.endings] == ["r0", "r1", "r2"]


async def test_r28_a_client_that_joins_in_the_middle_gets_what_was_said_so_far_first(
    tmp_path: Path, autojump_clock: object
) -> None:
    gate = Gate()

    async def respond(turn: Any) -> None:
        turn.say("What was said before. ")
        await gate.pass_through()
        turn.say("What came after.")

    async with open_service(tmp_path, agent=ScriptedAgent(respond)) as service:
        await service.send("talk", run_id="r1")
        await gate.reached()
        await trio.sleep(1)
        async with service.client.stream("GET", f"{service.w}/events?cursor=latest&deltas=1") as stream:
            first = await stream.receive_event()
            assert first["type"] == "message"
            assert "id" not in first
            assert text_of(payload(first)) == "What was said before. "
            gate.open()
            screen = Screen()
            screen.show([first, *await read_until(stream, "run_complete")])
        assert "".join(screen.messages[payload(first)["id"]]) == "What was said before. What came after."


# Connections that drop


async def test_r28_a_stream_that_is_cut_off_in_the_middle_of_a_frame_is_taken_up_again(tmp_path: Path) -> None:
    """Over sockets: the connection is reset wherever it happens to be, and what came whole of it counts."""
    pick = random.Random(1)
    seen: list[bytes] = []
    numbers: list[int] = []
    async with open_socket_service(tmp_path) as service:
        for number in range(20):
            await service.send(f"prompt {number}", run_id=f"r{number}")
        await service.ended("r19")
        latest = (await service.workspace.event_range()).latest
        while not numbers or numbers[-1] < latest:
            for frame in (await piece_of_log(service, numbers, latest, pick.randint(1, 20_000))).split(b"\n\n")[:-1]:
                head, _, event = frame.lstrip(b"\n").partition(b"\n")
                if event:
                    numbers.append(int(head.removeprefix(b"id: ")))
                    seen.append(event)
        assert numbers == list(range(1, latest + 1))
        assert seen == [b"data: " + each for each in await whole_log(service)]


async def piece_of_log(service: SocketService, numbers: list[int], latest: int, size: int) -> bytes:
    """So many bytes of a stream that goes on after the last number, or what there is; then the connection is reset."""
    data = b""
    async with service.connect() as connection:
        headers = {"Last-Event-ID": str(numbers[-1])} if numbers else {}
        await connection.send("GET", f"{service.w}/events?cursor=earliest", headers=headers)
        answer = await connection.answer()
        while len(data) < size and not (b"id: %d\n" % latest in data and data.endswith(b"\n\n")):
            data += await answer.receive()
        connection.stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    return data[:size]


async def whole_log(service: Service) -> list[bytes]:
    """The data of every event of the log, read at one go."""
    latest = (await service.workspace.event_range()).latest
    data = b""
    async with service.client.stream("GET", f"{service.w}/events?cursor=earliest") as stream:
        while b"id: %d\n" % latest not in data or not data.endswith(b"\n\n"):
            data += await stream.receive_chunk()
    return [frame.partition(b"data: ")[2] for frame in data.split(b"\n\n") if b"data: " in frame]


# The stream of one run


async def test_the_stream_of_a_run_ends_after_its_terminal_event(tmp_path: Path, autojump_clock: object) -> None:
    gate = Gate()

    async def respond(turn: Any) -> None:
        turn.say(f"You said: {turn.prompt.text}")
        await gate.pass_through()

    async with open_service(tmp_path, agent=ScriptedAgent(respond)) as service:
        for name in ("r1", "r2"):
            await service.send(name, run_id=name)
        async with service.client.stream("GET", f"{service.w}/runs/r2/events?deltas=1") as stream:
            gate.open()
            live = await read_to_end(stream)
        async with service.client.stream("GET", f"{service.w}/runs/r2/events") as stream:
            replayed = await read_to_end(stream)
    durable = [event for event in live if "id" in event]
    assert durable == replayed
    states = [payload(event)["state"] for event in durable if event["type"] == "run"]
    assert states == ["accepted", "queued", "active", "completed"]
    assert durable[-1]["type"] == "run_complete"
    assert {payload(event).get("run_id", "r2") for event in durable} == {"r2"}
    ids = {payload(event)["id"] for event in durable if event["type"] == "message"}
    assert len(ids) == 2, "its own messages alone"


async def test_r19_the_terminal_event_comes_after_every_message_of_its_turn(
    tmp_path: Path, autojump_clock: object
) -> None:
    async with open_service(tmp_path, agent=Talker(3).agent) as service:
        for number in range(4):
            await service.send("talk", run_id=f"r{number}")
        await service.ended("r3")
        log = await service.log()
        for number in range(4):
            run = await service.run(f"r{number}")
            async with service.client.stream("GET", f"{service.w}/runs/r{number}/events") as stream:
                own = await read_to_end(stream)
            assert [event["type"] for event in own].count("run_complete") == 1
            assert own[-1]["type"] == "run_complete"
            ending = payload(own[-1])
            told = [event for event in log if event["type"] == "message" and payload(event)["id"] == run["message_id"]]
            assert int(told[-1]["id"]) < int(own[-1]["id"])
            assert ending["text"] == text_of(payload(told[-1]))


# R29: readers that do not read


async def test_r29_a_stalled_reader_delays_nobody(tmp_path: Path, autojump_clock: object) -> None:
    """No time passes between what happens and the moment at which the others know of it."""
    async with open_service(tmp_path) as service, trio.open_nursery() as nursery:
        told: list[float] = []
        ready: list[None] = []

        async def read(stream_of: Stream) -> None:
            ready.append(None)
            await read_until(stream_of, "run_complete")
            told.append(trio.current_time())

        async def subscribe() -> None:
            async with service.client.stream("GET", f"{service.w}/events?cursor=latest&deltas=1") as stream:
                await read(stream)

        async with service.client.stream("GET", f"{service.w}/events?cursor=latest&deltas=1") as stalled:
            for _ in range(SUBSCRIBERS - 1):
                nursery.start_soon(subscribe)
            await trio.testing.wait_all_tasks_blocked()
            assert len(ready) == SUBSCRIBERS - 1
            now = trio.current_time()
            await service.send("hi", run_id="r1")
            await service.ended("r1")
            await trio.testing.wait_all_tasks_blocked()
            assert told == [now] * (SUBSCRIBERS - 1)
            late = await read_until(stalled, "run_complete")
            assert payload(late[-1])["text"] == "You said: hi"


async def test_r29_a_reader_that_fell_far_behind_loses_nothing_that_is_stored(
    tmp_path: Path, autojump_clock: object
) -> None:
    """More is said than is kept for any reader, and runs end, while it does not read."""

    async def respond(turn: Any) -> None:
        for _ in range(60):
            turn.say("word ")
            await trio.sleep(0.05)

    async with (
        open_service(tmp_path, agent=ScriptedAgent(respond)) as service,
        service.client.stream("GET", f"{service.w}/events?cursor=latest&deltas=1") as stalled,
    ):
        for number in range(20):
            await service.send("talk", run_id=f"r{number}")
            await service.ended(f"r{number}")
        bus = service.backend._bus.statistics()
        assert bus.published > 1000
        assert bus.buffered <= BUFFER
        assert bus.lagged >= 1
        screen = Screen()
        while len(screen.endings) < 20:
            screen.show([await stalled.receive_event()])
        await check_shown(service, screen)


async def test_crushs_own_stream_is_not_delayed_either(tmp_path: Path, autojump_clock: object) -> None:
    async with (
        open_service(tmp_path) as service,
        service.client.stream("GET", f"{service.w}/events?client_id={CLIENT}"),
        service.client.stream("GET", f"{service.w}/events?cursor=latest") as other,
    ):
        now = trio.current_time()
        for number in range(20):
            await service.send("hi", run_id=f"r{number}")
            await read_until(other, "run_complete")
        assert trio.current_time() == now

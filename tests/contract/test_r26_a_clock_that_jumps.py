"""R26: a calendar that jumps, under a server or between two of them, puts nothing out of order."""

import re
from itertools import pairwise

import pytest
import trio

from engine import clock
from engine.agents.protocol import Turn
from engine.backend import NewWorkspace, open_backend
from engine.clock import MICROSECONDS, rfc3339
from engine.events.pruning import KEPT_ANYHOW
from engine.records.change import OpenRequest
from engine.records.ids import RequestId, RunId, SessionId
from engine.records.permission import PermissionRequest
from engine.records.run import Prompt, RunState
from engine.settings import EngineSettings
from engine.store.check import check_store
from engine.store.sqlite import SqliteStore, open_sqlite_store
from tests.doubles.engine import ScriptedAgent, open_watched
from tests.doubles.holding_store import DyingStore, cancels
from tests.doubles.invariants import check_invariants
from tests.engine.store.samples import write

NOW = 1_795_000_000  # seconds since the epoch
YEAR = 365 * 86_400
JUMPS = {"back": NOW - YEAR, "far back": 0, "a second back": NOW - 1, "ahead": NOW + YEAR, "far ahead": 250_000_000_000}
RFC3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class Calendar:
    """What the system's calendar says, set by the test."""

    def __init__(self) -> None:
        self.seconds = NOW

    def __call__(self) -> int:
        return self.seconds * MICROSECONDS


@pytest.fixture
def calendar(monkeypatch: pytest.MonkeyPatch) -> Calendar:
    """The calendar of this test."""
    calendar = Calendar()
    monkeypatch.setattr(clock, "calendar_us", calendar)
    return calendar


async def hang(turn: Turn) -> None:
    turn.think("hm")
    turn.say("begun")
    turn.begin_tool_call("call", "none")
    await trio.sleep_forever()


async def answer(turn: Turn) -> None:
    if turn.prompt.text == "hang":
        await hang(turn)
    turn.say("words")
    await trio.lowlevel.checkpoint()


async def die_with_runs_in_every_state(disk: SqliteStore, path: str) -> None:
    """A server that is killed with a run that is active, one that waits, and one whose cancel is on record."""
    dying = DyingStore(disk, cancels("canceled"))
    async with open_watched(
        path=path, agent=ScriptedAgent(hang), wrap_store=lambda _: dying, check=False,
        settings=EngineSettings(data_dir=None, settle_s=0.1, unwind_s=0.1),
    ) as watched:  # fmt: skip
        await watched.send("a", run_id="active")
        await watched.send("b", run_id="queued")
        await watched.send("hang", run_id="canceled later")
        other = await watched.workspace.sessions.create("another")
        await watched.send("c", run_id="canceled", session_id=other.id)
        retried = await watched.workspace.sessions.create("one more")
        await watched.send("d", run_id="retried", session_id=retried.id, on_crash="retry")
        await trio.sleep(1)
        request = PermissionRequest(
            id=RequestId("r"), session_id=SessionId(watched.session_id), run_id=RunId("active"), tool_call_id="call",
            tool_name="none", action="none", path="/",
        )  # fmt: skip
        await write(watched.backend.store, OpenRequest(request, NOW * MICROSECONDS), workspace=watched.workspace.id)
        await watched.workspace.cancel_run("canceled")


@pytest.mark.parametrize("jump", JUMPS)
async def test_r26_calendar_that_jumped_between_two_servers_puts_nothing_out_of_order(
    jump: str, calendar: Calendar, autojump_clock: object, tmp_path: object
) -> None:
    async with open_sqlite_store(None) as disk:
        await die_with_runs_in_every_state(disk, str(tmp_path))
        calendar.seconds = JUMPS[jump]
        async with open_backend(
            EngineSettings(data_dir=None), environ={}, agent=ScriptedAgent(answer), wrap_store=lambda _: disk
        ) as backend:
            workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path)))
            states = {
                name: (await workspace.wait_run(name, 60)).state for name in ("active", "queued", "canceled", "retried")
            }
            assert states == {
                "active": RunState.INTERRUPTED, "queued": RunState.COMPLETED,
                "canceled": RunState.CANCELED, "retried": RunState.COMPLETED,
            }  # fmt: skip
            await workspace.cancel_run("canceled later")
            session_id = (await workspace.run("active")).session_id
            await workspace.accept(Prompt(session_id=session_id, text="later", run_id=RunId("later")))
            await workspace.wait_run("later", 60)
            # Numbers, turns, and that no moment is before the one that it follows.
            await check_invariants(backend, workspace)
            runs = await workspace.runs()
            assert [run.id for run in runs] == ["later", "retried", "canceled", "canceled later", "queued", "active"]
            messages = await workspace.sessions.messages(session_id)
            assert [message.turn for message in messages] == sorted(message.turn for message in messages)
            assert [message.text for message in messages if message.role == "user"] == ["a", "b", "hang", "later"]
            for event in await disk.events_after(workspace.id, 0, limit=1000):
                assert RFC3339.fullmatch(rfc3339(event.at_us))


async def test_r26_calendar_that_jumps_under_a_server_is_not_looked_at(
    calendar: Calendar, autojump_clock: object, tmp_path: object
) -> None:
    async def respond(turn: Turn) -> None:
        for seconds in JUMPS.values():
            calendar.seconds = seconds
            turn.say("word ")
            await trio.sleep(10)

    async with open_watched(path=str(tmp_path), agent=ScriptedAgent(respond)) as watched:
        run = await watched.ended(await watched.send("hi"))
        assert run.started_at_us is not None
        assert run.ended_at_us is not None
        assert run.ended_at_us - run.started_at_us == 10 * len(JUMPS) * MICROSECONDS
        moments = [event.at_us for event in await watched.events()]
        assert all(before <= after for before, after in pairwise(moments))
        assert moments[0] >= NOW * MICROSECONDS


@pytest.mark.parametrize("jump", JUMPS)
async def test_r26_deadline_is_of_trios_clock(
    jump: str, calendar: Calendar, autojump_clock: object, tmp_path: object
) -> None:
    async def respond(turn: Turn) -> None:
        calendar.seconds = JUMPS[jump]
        await trio.sleep_forever()

    async with open_watched(path=str(tmp_path), agent=ScriptedAgent(respond)) as watched:
        began = trio.current_time()
        run = await watched.ended(await watched.send("hi", timeout_s=5.0))
        assert (run.state, trio.current_time() - began) == (RunState.FAILED, 5.0)


async def test_r26_session_is_never_changed_before_it_was_made(
    calendar: Calendar, autojump_clock: object, tmp_path: object
) -> None:
    async with open_sqlite_store(None) as disk:
        async with open_watched(path=str(tmp_path), wrap_store=lambda _: disk) as watched:
            await watched.ended(await watched.send("hi"))
            session_id = watched.session_id
        calendar.seconds -= YEAR
        async with open_watched(path=str(tmp_path), wrap_store=lambda _: disk) as watched:
            await watched.workspace.sessions.update(session_id, title="renamed")
            await watched.ended(await watched.send("again", session_id=session_id))
            session = await watched.workspace.sessions.get(session_id)
            assert session.title == "renamed"
            assert session.updated_at_us >= session.created_at_us
        assert not [part for part in check_store(disk._database.reader) if part.problems]


async def test_r26_pruning_by_age_is_not_fooled_into_forgetting_everything(
    calendar: Calendar, autojump_clock: object, tmp_path: object
) -> None:
    """To a server whose calendar is a year ahead, all that the one before it wrote is old."""
    settings = EngineSettings(data_dir=None, event_keep_s=86_400.0)
    async with open_sqlite_store(None) as disk:
        async with open_watched(path=str(tmp_path), wrap_store=lambda _: disk, settings=settings) as watched:
            for number in range(60):
                await watched.ended(await watched.send(f"{number}"))
            written = len(await watched.events())
        for seconds in (NOW + YEAR, NOW):
            calendar.seconds = seconds
            async with open_watched(
                path=str(tmp_path), wrap_store=lambda _: disk, settings=settings, check=False
            ) as watched:
                await watched.backend.pruner.prune()
                kept = await watched.events()
                assert len(kept) >= min(written, KEPT_ANYHOW)
                assert [event.seq for event in kept] == list(range(kept[0].seq or 0, (kept[-1].seq or 0) + 1))

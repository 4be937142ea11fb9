"""Commands that a person runs in a session: what they come to is kept, and nothing of them is left."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from engine.agents.protocol import Turn
from engine.agents.transcript import transcript
from engine.errors import StoreUnavailable
from engine.events.log import Pending
from engine.models.offline import HELPER, INFOS
from engine.records.change import Change
from engine.records.ids import SessionId
from tests.doubles.engine import ScriptedAgent
from tests.doubles.gate import Gate
from tests.engine.tools.test_bash import alive, mark, until_alive
from tests.web.api import Api, open_api
from tests.web.site import open_live, wait_for

pytestmark = pytest.mark.slow

BOUND_S = 30.0


class Listener:
    """An agent that keeps what a model would be shown, and may be held."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.gates: dict[str, Gate] = {}

    async def __call__(self, turn: Turn) -> None:
        self.seen.append(msgspec.json.encode(transcript(turn.history, INFOS[HELPER])).decode())
        await trio.lowlevel.checkpoint()
        if turn.prompt.text in self.gates:
            await self.gates[turn.prompt.text].pass_through()
        turn.say("heard")


async def shell(api: Api, command: str, **more: Any) -> Any:
    """Run a command; what it came to."""
    answer = await api.client.post(f"{api.w}/agent/sessions/{api.session_id}/shell", {"command": command, **more})
    assert answer.status == 200, answer
    return answer.json()


async def messages(api: Api) -> list[dict[str, Any]]:
    """What the session has."""
    found: list[dict[str, Any]] = (await api.client.get(f"{api.w}/sessions/{api.session_id}/messages")).json()
    return found


async def test_a_command_runs_in_the_workspace_and_its_message_is_kept_and_shown(tmp_path: Path) -> None:
    listener = Listener()
    with trio.fail_after(BOUND_S):
        async with open_api(tmp_path, agent=ScriptedAgent(listener)) as api:
            command = "echo out; echo err >&2; pwd; echo $COLUMNS; cat; exit 3"
            result = await shell(api, command, term_width=77)
            assert result == {"output": f"out\nerr\n{tmp_path}\n77\n", "exit_code": 3}
            [message] = await messages(api)
            assert (message["role"], message["parts"][0]["type"]) == ("user", "shell_command")
            assert message["parts"][0]["data"] == {"command": command, **result}
            assert message["parts"][1] == {"type": "finish", "data": {"reason": "stop", "time": 0}}
            await api.ended((await api.send("what did it say?")).json()["run_id"])
    assert "exit code 3" in listener.seen[0]
    assert "out\\nerr" in listener.seen[0]


async def test_what_is_run_while_a_run_is_active_is_seen_by_the_next_one(tmp_path: Path) -> None:
    listener = Listener()
    listener.gates = {"first": Gate(), "second": Gate()}
    with trio.fail_after(BOUND_S):
        async with open_api(tmp_path, agent=ScriptedAgent(listener)) as api:
            for name in ("first", "second"):
                await api.send(name, run_id=name)
            await listener.gates["first"].reached()
            await shell(api, "echo in the middle")
            for name in ("first", "second"):
                listener.gates[name].open()
                await api.ended(name)
            found = [(each["role"], each["parts"][0]["type"]) for each in await messages(api)]
    assert "in the middle" in listener.seen[1]
    assert [kind for _, kind in found] == ["text", "text", "shell_command", "text", "text"]


async def test_a_long_output_is_bounded_and_broken_text_is_mended(tmp_path: Path) -> None:
    with trio.fail_after(BOUND_S):
        async with open_api(tmp_path) as api:
            result = await shell(api, r"printf 'a\377b'; yes | head -c 300000; echo end")
    assert result["output"].startswith("a\ufffdby\n")
    assert result["output"].endswith("\nend\n")
    assert len(result["output"]) < 31_000


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "command"), ({"command": ""}, "command"), ({"command": "a\0b"}, "command"),
     ({"command": "x" * 40_000}, "command"), ({"command": "ls", "term_width": -1}, "term_width")],
)  # fmt: skip
async def test_what_cannot_be_run_is_refused(body: Any, field: str, tmp_path: Path, autojump_clock: object) -> None:
    async with open_api(tmp_path) as api:
        answer = await api.client.post(f"{api.w}/agent/sessions/{api.session_id}/shell", body)
        assert (answer.status, answer.json()["field"]) == (400, field)
        unknown = await api.client.post(f"{api.w}/agent/sessions/nothing/shell", {"command": "ls"})
        assert (unknown.status, unknown.json()["type"]) == (404, "session_not_found")


async def test_a_request_that_is_dropped_leaves_no_process_and_its_message_is_kept(tmp_path: Path) -> None:
    marked = mark()
    async with open_live(tmp_path) as site:
        workspace_id, session_id = await site.open_session()
        body = msgspec.json.encode({"command": f"echo begun; setsid sleep {marked} & sleep {marked}"})
        head = f"POST /v1/workspaces/{workspace_id}/agent/sessions/{session_id}/shell HTTP/1.1\r\nHost: localhost\r\n"
        stream = await trio.open_unix_socket(site.unix.removeprefix("unix://"))
        async with stream:
            await stream.send_all(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            await until_alive(marked, 2)
        workspace = site.backend.workspace(workspace_id)
        while not (kept := await workspace.sessions.messages(session_id)):
            await trio.lowlevel.checkpoint()
        assert await trio.to_thread.run_sync(alive, marked) == []
        data = msgspec.to_builtins(kept[0].parts[0])
    assert (data["output"], data["exit_code"]) == ("begun\n[The command was killed.]", 137)


async def test_a_cancel_is_none_the_less_one_when_the_store_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(change: Change) -> Pending:
        raise StoreUnavailable("the store is behind")

    marked = mark()
    with trio.fail_after(BOUND_S):
        async with open_api(tmp_path) as api, trio.open_nursery() as nursery:
            workspace = api.backend.workspace(api.w.rpartition("/")[2])
            nursery.start_soon(workspace.shell.run, api.session_id, f"sleep {marked}")
            await until_alive(marked, 1)
            with monkeypatch.context() as patched:
                patched.setattr(api.backend.log, "submit", refuse)
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await wait_for(lambda: not nursery.child_tasks)
            assert await trio.to_thread.run_sync(alive, marked) == []


async def test_a_workspace_that_closes_kills_what_runs_and_starts_nothing_more(tmp_path: Path) -> None:
    marked = mark()
    results: list[Any] = []
    with trio.fail_after(BOUND_S):
        async with open_api(tmp_path) as api, trio.open_nursery() as nursery:
            path = f"{api.w}/agent/sessions/{api.session_id}/shell"

            async def ask() -> None:
                results.append(await api.client.post(path, {"command": f"sleep {marked}"}))

            nursery.start_soon(ask)
            await until_alive(marked, 1)
            workspace = api.backend.workspace(api.w.rpartition("/")[2])
            await api.client.delete(api.w)
            assert await trio.to_thread.run_sync(alive, marked) == []
            await wait_for(lambda: results)
            refused = await api.client.post(path, {"command": "true"})
            [kept] = await api.backend.store.messages(workspace.id, SessionId(api.session_id))
    assert (results[0].status, results[0].json()["exit_code"]) == (200, 137)
    assert refused.status == 404
    assert kept.role == "user"

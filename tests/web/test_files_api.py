"""The files of a session over HTTP: what it has read, what it has changed, and when."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.agents.protocol import Turn
from engine.tools.toolbox import open_toolbox
from tests.doubles.engine import ScriptedAgent
from tests.web.api import NOBODY, Api, open_api

NEVER = "0001-01-01T00:00:00Z"


async def get(api: Api, target: str) -> Any:
    """The answer of a call that succeeds."""
    answer = await api.client.get(f"{api.w}/{target}")
    assert answer.status == 200, answer
    return answer.json()


async def note(api: Api, path: str, **more: str) -> int:
    """Say that the session has read a file."""
    body = {"session_id": api.session_id, "path": path, **more}
    return (await api.client.post(f"{api.w}/filetracker/read", body)).status


async def test_what_was_read_is_listed_the_last_first(tmp_path: Path, autojump_clock: object) -> None:
    (tmp_path / "a.txt").write_text("hello")
    async with open_api(tmp_path) as api:
        tracker = f"sessions/{api.session_id}/filetracker/files"
        last_read = f"filetracker/lastread?session_id={api.session_id}&path="
        assert (await get(api, tracker), await get(api, last_read + "a.txt")) == ([], NEVER)
        assert await note(api, "a.txt") == 200
        assert await note(api, str(tmp_path / "gone.txt")) == 200  # that it cannot be read is no error
        read = await get(api, tracker)
        assert set(read) == {str(tmp_path / "a.txt"), str(tmp_path / "gone.txt")}
        at = await get(api, last_read + "a.txt")
        assert at == await get(api, last_read + str(tmp_path / "a.txt"))
        assert (at[:2], at[-1]) == ("20", "Z")
        assert await get(api, f"sessions/{await api.create_session()}/filetracker/files") == []


async def change(turn: Turn) -> None:
    """Change a file that was attached, without reading it first."""
    turn.begin_tool_call("c", "write")
    turn.append_tool_input("c", '{"file_path": "a.txt", "content": "bye"}')
    await turn.call_tool(turn.end_tool_call("c"))


async def test_a_file_that_was_noted_may_be_changed_and_its_versions_are_kept(
    tmp_path: Path, autojump_clock: object
) -> None:
    (tmp_path / "a.txt").write_text("hello")
    async with open_api(tmp_path, agent=ScriptedAgent(change), tools=open_toolbox) as api:
        await api.client.post(f"{api.w}/permissions/skip", {"skip": True})
        history = f"sessions/{api.session_id}/history"
        await api.ended((await api.send()).json()["run_id"])
        assert (await get(api, history), (tmp_path / "a.txt").read_text()) == ([], "hello")
        await note(api, "a.txt")
        await api.ended((await api.send()).json()["run_id"])
        assert (tmp_path / "a.txt").read_text() == "bye"
        found = await get(api, history)
        assert [(file["version"], file["content"]) for file in found] == [(0, "hello"), (1, "bye")]
        assert set(found[0]) == {"id", "session_id", "path", "content", "version", "created_at", "updated_at"}
        assert {(file["path"], file["session_id"]) for file in found} == {(str(tmp_path / "a.txt"), api.session_id)}


async def test_versions_come_number_by_number_and_a_change_from_outside_is_one(
    tmp_path: Path, autojump_clock: object
) -> None:
    async def rewrite(turn: Turn) -> None:
        for name in ("a.txt", "new.txt"):
            turn.begin_tool_call(name, "write")
            turn.append_tool_input(name, msgspec.json.encode({"file_path": name, "content": turn.prompt.text}).decode())
            await turn.call_tool(turn.end_tool_call(name))

    (tmp_path / "a.txt").write_text("there")
    async with open_api(tmp_path, agent=ScriptedAgent(rewrite), tools=open_toolbox) as api:
        await api.client.post(f"{api.w}/permissions/skip", {"skip": True})
        await note(api, "a.txt")
        await api.ended((await api.send("one")).json()["run_id"])
        (tmp_path / "a.txt").write_text("outside")
        await note(api, "a.txt")
        await api.ended((await api.send("two")).json()["run_id"])
        found = [
            (each["version"], Path(each["path"]).name, each["content"])
            for each in await get(api, f"sessions/{api.session_id}/history")
        ]
        assert found == [
            (0, "a.txt", "there"), (0, "new.txt", ""), (1, "a.txt", "one"), (1, "new.txt", "one"),
            (2, "a.txt", "outside"), (2, "new.txt", "two"), (3, "a.txt", "two"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    "target", ["sessions/{N}/history", "sessions/{N}/filetracker/files", "filetracker/lastread?session_id={N}&path=a"]
)
async def test_an_unknown_session_is_404(tmp_path: Path, autojump_clock: object, target: str) -> None:
    async with open_api(tmp_path) as api:
        assert (await api.client.get(f"{api.w}/{target}".replace("{N}", NOBODY))).status == 404
        assert await note(api, "a.txt", session_id=NOBODY) == 404
        unknown = api.w.replace(api.w.rpartition("/")[2], NOBODY)
        assert (await api.client.get(f"{unknown}/{target}".replace("{N}", api.session_id))).status == 404


@pytest.mark.parametrize("path", ["", "a\0b", "~nobody/x", "x" * 5000])
async def test_what_is_no_path_is_refused_with_its_field(tmp_path: Path, autojump_clock: object, path: str) -> None:
    async with open_api(tmp_path) as api:
        answer = await api.client.post(f"{api.w}/filetracker/read", {"session_id": api.session_id, "path": path})
        assert (answer.status, answer.json()["field"]) == (400, "path")
        if "\0" not in path:
            target = f"{api.w}/filetracker/lastread?session_id={api.session_id}&path={path}"
            answer = await api.client.get(target)
            assert (answer.status, answer.json()["field"]) == (400, "path")
        assert await get(api, f"sessions/{api.session_id}/filetracker/files") == []

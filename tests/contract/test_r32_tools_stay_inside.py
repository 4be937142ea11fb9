"""R32: a tool cannot reach outside what it was given; its output is bounded, and what is cut off is said."""

import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
import trio.testing

from engine.errors import NOBODY_TO_ASK
from engine.records.message import ToolResult
from engine.records.permission import Decision, PermissionRequest
from engine.records.run import RunState
from engine.settings import EngineSettings
from engine.tools.calling import CONTENT_MAX
from engine.tools.toolbox import open_toolbox
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import Watched, open_watched
from tests.doubles.waiting import until

EVERYTHING = frozenset({"view", "write", "edit", "multiedit", "ls", "glob", "grep"})


def opening(path: Path, **settings: Any) -> AbstractAsyncContextManager[Watched]:
    """A workspace with the built-in agent and its tools, in memory."""
    bounds = EngineSettings(data_dir=None, **settings)
    return open_watched(path=str(path), settings=bounds, tools=open_toolbox, **coder(RecordingModel()))


def calls(*asked: tuple[str, Mapping[str, object]]) -> str:
    """A prompt whose answer makes these calls, a step each."""
    return script(*([{"tool": name, "input": given}] for name, given in asked), [{"text": "done"}])


async def results(watched: Watched) -> list[ToolResult]:
    return [result for message in await watched.messages() for result in message.tool_results]


async def question(watched: Watched) -> PermissionRequest:
    await until(lambda: bool(watched.workspace.permissions.waiting()))
    await trio.testing.wait_all_tasks_blocked()
    [request] = watched.workspace.permissions.waiting()
    return request


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The workspace, with a secret beside it and a symlink to that."""
    directory = tmp_path / "project"
    directory.mkdir()
    (tmp_path / "secret.txt").write_text("the secret")
    (directory / "innocent.txt").symlink_to("../secret.txt")
    (directory / "a.txt").write_text("hello")
    return directory


@pytest.mark.parametrize("path", ["../secret.txt", "innocent.txt", "{outside}/secret.txt"])
async def test_r32_outside_it_asks_even_for_what_is_on_the_allow_list(
    autojump_clock: object, project: Path, path: str
) -> None:
    path = path.format(outside=project.parent)
    async with opening(project, allowed_tools=EVERYTHING) as watched:
        run = await watched.send(calls(("view", {"file_path": "a.txt"}), ("view", {"file_path": path})))
        request = await question(watched)
        assert (request.tool_name, request.action, request.path) == ("view", "read", str(project.parent))
        assert request.params["file_path"] == str(project.parent / "secret.txt")
        assert await watched.workspace.permissions.answer(request.id, Decision.DENY)
        assert (await watched.ended(run)).state is RunState.COMPLETED
        first, second = await results(watched)
        assert "hello" in first.content
        assert (second.content, second.is_error) == ("User denied permission", True)


async def test_r32_what_is_granted_outside_is_that_directory_and_no_other(
    autojump_clock: object, project: Path
) -> None:
    (project.parent / "other").mkdir()
    (project.parent / "other" / "b.txt").write_text("another secret")
    async with opening(project) as watched:
        asked = ["../secret.txt", "innocent.txt", "../other/b.txt"]
        run = await watched.send(calls(*(("view", {"file_path": path}) for path in asked)))
        assert await watched.workspace.permissions.answer((await question(watched)).id, Decision.ALLOW_SESSION)
        request = await question(watched)  # the second needed none
        assert request.path == str(project.parent / "other")
        await watched.workspace.cancel_run(run.id)
        assert (await watched.ended(run)).state is RunState.CANCELED
        found = await results(watched)
        assert ["the secret" in result.content for result in found] == [True, True, False]


async def test_r32_with_nobody_to_ask_outside_stays_outside(autojump_clock: object, project: Path) -> None:
    async with opening(project, allowed_tools=EVERYTHING) as watched:
        watched.workspace.permissions.attend(False, clients=1)
        write = {"file_path": "../new.txt", "content": "x"}
        run = await watched.send(calls(("view", {"file_path": "../secret.txt"}), ("write", write)))
        assert (await watched.ended(run, within=1)).state is RunState.COMPLETED
        assert [result.content for result in await results(watched)] == [NOBODY_TO_ASK] * 2
        assert not (project.parent / "new.txt").exists()


async def test_r32_a_symlink_put_in_while_the_person_decides_is_not_followed(
    autojump_clock: object, project: Path
) -> None:
    async with opening(project) as watched:
        write = {"file_path": "a.txt", "content": "mine"}
        run = await watched.send(calls(("view", {"file_path": "a.txt"}), ("write", write)))
        request = await question(watched)
        (project / "a.txt").unlink()
        (project / "a.txt").symlink_to("../secret.txt")
        assert await watched.workspace.permissions.answer(request.id, Decision.ALLOW)
        assert (await watched.ended(run)).state is RunState.COMPLETED
        assert "is a symlink" in (await results(watched))[-1].content
        assert (project.parent / "secret.txt").read_text() == "the secret"


async def test_r32_output_is_bounded_and_binary_is_recognised(autojump_clock: object, project: Path) -> None:
    (project / "long.txt").write_text(("x" * 5000 + "\n") * 1000)
    (project / "binary").write_bytes(bytes(range(256)))
    async with opening(project) as watched:
        asked: list[dict[str, object]] = [{"file_path": "long.txt", "limit": 1000}, {"file_path": "binary"}]
        await watched.ended(await watched.send(calls(*(("view", given) for given in asked))))
        long, binary = await results(watched)
        assert len(long.content) < CONTENT_MAX
        assert "[3000 bytes more]" in long.content
        assert "more lines; read on with offset" in long.content
        assert (binary.is_error, "is a binary file" in binary.content) == (True, True)


async def test_r10_a_cancel_while_a_change_is_asked_for_leaves_the_file(autojump_clock: object, project: Path) -> None:
    async with opening(project) as watched:
        edit = {"file_path": "a.txt", "old_string": "hello", "new_string": "bye"}
        run = await watched.send(calls(("view", {"file_path": "a.txt"}), ("edit", edit)))
        await question(watched)
        await watched.workspace.cancel_run(run.id)
        assert (await watched.ended(run)).state is RunState.CANCELED
        assert (project / "a.txt").read_text() == "hello"
        assert sorted(os.listdir(project)) == ["a.txt", "innocent.txt"]
        assert await watched.workspace.files.history(watched.session_id) == []

"""`todos`: the list is kept with the session, and what has just changed in it is told."""

import json
from pathlib import Path
from typing import Any

from engine.records.session import Todo
from engine.tools.todos import TodosTool, drawn, summary
from tests.doubles.engine import open_watched
from tests.engine.tools.calling import call


def todo(content: str, status: str) -> dict[str, str]:
    return {"content": content, "status": status, "active_form": f"{content}ing"}


async def test_the_list_is_kept_and_what_changed_is_told(autojump_clock: object, tmp_path: Path) -> None:
    async with open_watched(path=str(tmp_path)) as watched:
        backend, workspace = watched.backend, watched.workspace
        tool = TodosTool(backend.store, backend.log, workspace.id, lambda: 0)

        async def put(*todos: dict[str, str]) -> tuple[str, dict[str, Any]]:
            said = await call(tool, tmp_path, session_id=watched.session_id, todos=list(todos))
            return said.content, json.loads(said.metadata)

        content, told = await put(todo("test", "in_progress"), todo("fix", "pending"))
        assert content == "The list has 2 lines: 0 completed, 1 in progress, 1 pending."
        assert (told["is_new"], told["just_started"], told["completed"], told["total"]) == (True, "testing", 0, 2)
        _, told = await put(todo("test", "completed"), todo("fix", "in_progress"))
        assert (told["is_new"], told["just_completed"], told["just_started"]) == (False, ["test"], "fixing")
        session = await workspace.sessions.get(watched.session_id)
        assert session.todos == (Todo("test", "completed", "testing"), Todo("fix", "in_progress", "fixing"))


async def test_a_status_that_is_none_is_the_models_to_mend(autojump_clock: object, tmp_path: Path) -> None:
    async with open_watched(path=str(tmp_path)) as watched:
        tool = TodosTool(watched.backend.store, watched.backend.log, watched.workspace.id, lambda: 0)
        said = await call(tool, tmp_path, session_id=watched.session_id, todos=[todo("a", "done")])
        assert said.is_error
        assert "status" in said.content


def test_an_empty_list_is_one() -> None:
    assert summary(()) == "The list has 0 lines: 0 completed, 0 in progress, 0 pending."
    assert drawn((Todo("a", "pending"),), ()).total == 0

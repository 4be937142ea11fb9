"""Every tool with the names, parameters, questions and metadata by which Crush's client draws it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from engine.tools.toolbox import open_toolbox
from tests.doubles.engine import open_watched
from tests.doubles.file_tools import FileTools, open_file_tools
from tests.engine.tools.test_toolbox import BUILT_IN, seams_of

# The parameters, those that Crush requires marked with a star.
PARAMETERS: Mapping[str, str] = {
    "agent": "prompt*",
    "bash": "description* command* working_dir run_in_background auto_background_after",
    "download": "url* file_path* timeout",
    "edit": "file_path* old_string* new_string* replace_all",
    "fetch": "url* format* timeout",
    "glob": "pattern* path",
    "grep": "pattern* path include literal_text",
    "job_kill": "shell_id*",
    "job_output": "shell_id* wait*",
    "ls": "path ignore depth",
    "multiedit": "file_path* edits*",
    "question": "questions* confirm_title confirm_description",
    "todos": "todos*",
    "view": "file_path* offset limit",
    "write": "file_path* content*",
}
INNER: Mapping[tuple[str, str], str] = {
    ("multiedit", "edits"): "old_string* new_string* replace_all",
    ("todos", "todos"): "content* status* active_form*",
    ("question", "questions"): "type* question* description* label choices options",
}
OPTIONAL_HERE = {("job_output", "wait")}  # a model that leaves it out means: do not wait

COUNTED = {"additions": int, "removals": int}
CHANGED = {**COUNTED, "old_content": str, "new_content": str}


def told(schema: Mapping[str, Any], name: str) -> set[str]:
    """The parameters of a schema, as above."""
    required = {*schema.get("required", ()), *(field for tool, field in OPTIONAL_HERE if tool == name)}
    return {f"{field}*" if field in required else field for field in schema["properties"]}


async def test_the_parameters_are_those_that_crush_has(autojump_clock: object, tmp_path: Path) -> None:
    async with open_watched(path=str(tmp_path)) as watched, open_toolbox(seams_of(watched, tmp_path)) as opened:
        assert set(PARAMETERS) == BUILT_IN
        for name, tool in opened.tools.items():
            schema: Any = tool.parameters
            assert told(schema, name) == set(PARAMETERS[name].split()), name
        for (name, field), wanted in INNER.items():
            outer: Any = opened.tools[name].parameters
            assert told(outer["properties"][field]["items"], name) == set(wanted.split()), name


async def drawn(tools: FileTools, name: str, **arguments: object) -> dict[str, type]:
    """The keys of a call's metadata, and what kind of value each has."""
    return {key: type(value) for key, value in (await tools.metadata(name, **arguments)).items()}


async def test_the_metadata_of_files_and_searches(tools: FileTools) -> None:
    (tools.root / "a.txt").write_text("one\ntwo\n")
    files = {"number_of_files": int, "truncated": bool}
    assert await drawn(tools, "view", file_path="a.txt") == {"file_path": str, "content": str}
    assert await drawn(tools, "ls") == files
    assert await drawn(tools, "glob", pattern="*.txt") == files
    assert await drawn(tools, "grep", pattern="one") == {"number_of_matches": int, "truncated": bool}
    assert await drawn(tools, "write", file_path="b.txt", content="x") == {**COUNTED, "diff": str}
    edit = {"old_string": "one", "new_string": "1"}
    assert await drawn(tools, "edit", file_path="a.txt", **edit) == CHANGED
    edits = [{"old_string": "two", "new_string": "2"}, {"old_string": "no such", "new_string": "x"}]
    told = await tools.metadata("multiedit", file_path="a.txt", edits=edits)
    assert {key: type(value) for key, value in told.items()} == {**CHANGED, "edits_applied": int, "edits_failed": list}
    assert set(told["edits_failed"][0]) == {"index", "error", "edit"}
    assert set(told["edits_failed"][0]["edit"]) >= {"old_string", "new_string"}


async def test_the_metadata_of_todos(tools: FileTools) -> None:
    line = {"content": "Test", "status": "pending", "active_form": "Testing"}
    always = {"is_new": bool, "todos": list, "completed": int, "total": int}
    assert await drawn(tools, "todos", todos=[line]) == always
    assert await drawn(tools, "todos", todos=[{**line, "status": "in_progress"}]) == {**always, "just_started": str}
    told = await tools.metadata("todos", todos=[{**line, "status": "completed"}])
    assert {key: type(value) for key, value in told.items()} == {**always, "just_completed": list}
    assert told["todos"] == [{**line, "status": "completed"}]


async def test_questions_of_files_have_what_the_dialog_shows(tools: FileTools) -> None:
    outside = tools.root.parent / "outside"
    outside.mkdir()
    (outside / "a.txt").write_text("one\n")
    calls: dict[str, tuple[str, dict[str, object], set[str]]] = {
        "view": ("read", {"file_path": str(outside / "a.txt")}, {"file_path", "offset", "limit"}),
        "ls": ("list", {"path": str(outside)}, {"path", "ignore", "depth"}),
        "glob": ("list", {"path": str(outside), "pattern": "*"}, {"path", "pattern"}),
        "grep": ("read", {"path": str(outside / "a.txt"), "pattern": "o"}, {"path", "pattern", "include"}),
        "write": ("write", {"file_path": "b.txt", "content": "x"}, {"file_path", "new_content"}),
        "edit": (
            "write", {"file_path": "b.txt", "old_string": "x", "new_string": "y"},
            {"file_path", "old_content", "new_content"},
        ),
        "multiedit": (
            "write", {"file_path": "b.txt", "edits": [{"old_string": "y", "new_string": "z"}]},
            {"file_path", "old_content", "new_content"},
        ),
    }  # fmt: skip
    for name, (action, arguments, params) in calls.items():
        tools.asked.clear()
        await tools.ok(name, **arguments)
        [asked] = tools.asked
        assert (asked.action, set(asked.params)) == (action, params), name
        assert asked.path == (outside if action != "write" else tools.root), "a directory, never a file"


@pytest.mark.parametrize("name", ["fetch", "download"])
async def test_questions_of_the_web(tools: FileTools, name: str) -> None:
    tools.denies = True
    more = {"format": "text"} if name == "fetch" else {"file_path": "a"}
    outcome = await tools.call(name, url="http://site.test/", **more)
    assert "User denied permission" in outcome.content  # by these words the client draws a warning
    assert [(asked.action, set(asked.params)) for asked in tools.asked] == [(name, {"url", "timeout", *more})]


@pytest.mark.slow
async def test_commands_and_their_jobs(root: Path) -> None:
    with trio.fail_after(60):
        async with open_file_tools(root) as tools:
            shown = {"description": str, "working_directory": str}
            ended = {**shown, "start_time": int, "end_time": int, "output": str}
            assert await drawn(tools, "bash", command="echo a >&2; touch x", description="d") == ended
            [asked] = tools.asked
            assert (asked.action, asked.path) == ("execute", root)
            keys = {"description", "command", "working_dir", "run_in_background", "auto_background_after"}
            assert set(asked.params) == keys
            running = {**ended, "background": bool, "shell_id": str}
            command = {"command": "exec sleep 50", "description": "d", "run_in_background": True}
            told = await tools.metadata("bash", **command)
            assert {key: type(value) for key, value in told.items()} == running
            job = {**shown, "shell_id": str, "command": str, "done": bool}
            assert await drawn(tools, "job_output", shell_id=told["shell_id"], wait=False) == job
            assert await drawn(tools, "job_kill", shell_id=told["shell_id"]) == job

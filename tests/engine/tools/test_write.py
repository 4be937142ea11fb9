"""write: whole files, seen before, asked for, kept for undo, and never half."""

import os
import stat

import pytest

from engine.tools import file_change, session_files, write
from tests.doubles.file_tools import FileTools, leftovers


async def test_a_new_file_is_created_with_its_directories(tools: FileTools) -> None:
    told = await tools.metadata("write", file_path="a/b/c.txt", content="one\ntwo\n")
    path = tools.root / "a/b/c.txt"
    assert path.read_text() == "one\ntwo\n"
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 & ~umask
    assert told["diff"] == "--- a/a/b/c.txt\n+++ b/a/b/c.txt\n@@ -0,0 +1,2 @@\n+one\n+two\n"
    assert (told["additions"], told["removals"]) == (2, 0)
    assert await tools.versions("a/b/c.txt") == [(0, ""), (1, "one\ntwo\n")]
    assert leftovers(tools.root) == []


async def test_it_asks_with_the_whole_texts(tools: FileTools) -> None:
    path = tools.root / "a.txt"
    path.write_text("old\n")
    await tools.ok("view", file_path="a.txt")
    await tools.ok("write", file_path="a.txt", content="new\n")
    [asked] = tools.asked
    assert (asked.action, asked.path) == ("write", tools.root)
    assert asked.params == {"file_path": str(path), "old_content": "old\n", "new_content": "new\n"}


async def test_a_denial_leaves_everything_as_it_was_and_ends_the_turn(tools: FileTools) -> None:
    tools.denies = True
    outcome = await tools.call("write", file_path="a/b.txt", content="x")
    assert (outcome.content, outcome.is_error, outcome.ends_turn) == ("User denied permission", True, True)
    assert list(tools.root.iterdir()) == []
    assert await tools.versions("a/b.txt") == []


async def test_what_was_not_seen_or_has_changed_is_not_overwritten(tools: FileTools) -> None:
    path = tools.root / "a.txt"
    path.write_text("one")
    assert "was not read in this session" in await tools.fails("write", file_path="a.txt", content="x")
    await tools.ok("view", file_path="a.txt")
    path.write_text("two")
    assert "has changed since" in await tools.fails("write", file_path="a.txt", content="x")
    assert (path.read_text(), tools.asked) == ("two", [])
    await tools.ok("view", file_path="a.txt")
    os.utime(path, ns=(1, 1))  # touched, not changed
    await tools.ok("write", file_path="a.txt", content="three")
    await tools.ok("write", file_path="a.txt", content="four")  # what it wrote it has seen
    assert path.read_text() == "four"


@pytest.mark.parametrize("exists", [True, False])
async def test_a_change_while_the_person_decides_is_not_overwritten(tools: FileTools, exists: bool) -> None:
    path = tools.root / "a.txt"
    if exists:
        path.write_text("one")
        await tools.ok("view", file_path="a.txt")

    def change() -> None:
        path.write_text("somebody else")

    tools.before_answer = change
    assert "was changed by somebody else" in await tools.fails("write", file_path="a.txt", content="mine")
    assert path.read_text() == "somebody else"
    assert leftovers(tools.root) == []


async def test_a_file_that_is_deleted_while_the_person_decides_is_not_brought_back(tools: FileTools) -> None:
    path = tools.root / "a.txt"
    path.write_text("one")
    await tools.ok("view", file_path="a.txt")
    tools.before_answer = path.unlink
    assert "was changed by somebody else" in await tools.fails("write", file_path="a.txt", content="mine")
    assert list(tools.root.iterdir()) == []


async def test_mode_line_ends_and_byte_order_mark_are_kept(tools: FileTools) -> None:
    path = tools.root / "run.bat"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    path.chmod(0o750)
    await tools.ok("view", file_path="run.bat")
    await tools.ok("write", file_path="run.bat", content="one\nthree")
    assert path.read_bytes() == b"\xef\xbb\xbfone\r\nthree"
    assert stat.S_IMODE(path.stat().st_mode) == 0o750


async def test_what_is_there_already_is_an_error(tools: FileTools) -> None:
    (tools.root / "a.txt").write_text("same")
    (tools.root / "d").mkdir()
    await tools.ok("view", file_path="a.txt")
    assert "already holds exactly this" in await tools.fails("write", file_path="a.txt", content="same")
    assert "is a directory" in await tools.fails("write", file_path="d", content="x")
    assert "is not a directory" in await tools.fails("write", file_path="a.txt/b", content="x")
    assert tools.asked == []


async def test_the_history_keeps_what_others_wrote_in_between(tools: FileTools) -> None:
    path = tools.root / "a.txt"
    path.write_text("theirs")
    await tools.ok("view", file_path="a.txt")
    await tools.ok("write", file_path="a.txt", content="mine")
    path.write_text("theirs again")
    await tools.ok("view", file_path="a.txt")
    await tools.ok("write", file_path="a.txt", content="mine again")
    kept = [(0, "theirs"), (1, "mine"), (2, "theirs again"), (3, "mine again")]
    assert await tools.versions("a.txt") == kept


async def test_a_file_too_large_for_the_history_is_written_and_it_is_said(
    tools: FileTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_files, "HISTORY_MAX", 10)
    told = await tools.ok("write", file_path="a.txt", content="x" * 11)
    assert "this change cannot be taken back" in told
    assert [content for _, content in await tools.versions("a.txt")] == [""]
    assert "cannot be taken back" not in await tools.ok("write", file_path="b.txt", content="x")


@pytest.mark.parametrize("step", ["fsync", "fchmod", "rename", "link"])
async def test_a_disk_that_fails_leaves_the_old_file_and_nothing_else(
    tools: FileTools, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tools.root / ("new/a.txt" if step == "link" else "a.txt")
    if step != "link":
        path.write_text("old")
        await tools.ok("view", file_path="a.txt")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, step, fail)
        told = await tools.fails("write", file_path=str(path), content="new")
    assert "No space left on device" in told
    assert leftovers(tools.root) == []
    if step == "link":
        assert list(tools.root.iterdir()) == []  # the directory that was made for it is gone too
    else:
        assert path.read_text() == "old"


async def test_a_file_system_without_hard_links_gets_its_file(
    tools: FileTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", cannot)
    await tools.ok("write", file_path="a.txt", content="x")
    assert (tools.root / "a.txt").read_text() == "x"
    assert leftovers(tools.root) == []


async def test_a_very_large_text_is_written_but_not_shown_to_every_reader(
    tools: FileTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_change, "SHOWN_MAX", 50)
    monkeypatch.setattr(write, "SHOWN_MAX", 50)
    told = await tools.metadata("write", file_path="a.txt", content="x" * 51)
    assert told == {"diff": "", "additions": 1, "removals": 0}
    assert tools.asked[0].params == {"file_path": str(tools.root / "a.txt")}
    told = await tools.metadata("edit", file_path="a.txt", old_string="x" * 50, new_string="")
    assert told == {"new_content": "x", "additions": 1, "removals": 1}
    assert tools.asked[1].params == {"file_path": str(tools.root / "a.txt"), "new_content": "x"}

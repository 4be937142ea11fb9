"""R32: an attack list for paths. Each is refused, or asked for; nothing outside is read or written without a word."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.file_tools import FileTools, leftovers

SECRET = "the secret"

# What makes the trap in the workspace (with the outside beside it), and the path that the model then names.
Attack = Callable[[Path, Path], str]


def link(name: str, target: Callable[[Path], object], then: str = "") -> Attack:
    """A symlink in the workspace."""

    def make(root: Path, outside: Path) -> str:
        (root / name).symlink_to(str(target(outside)))
        return f"{name}{then}"

    return make


def nested_link(root: Path, outside: Path) -> str:
    (root / "a").mkdir()
    (root / "a" / "up").symlink_to("../..")
    return "a/up/outside/secret.txt"


def link_to_link(root: Path, outside: Path) -> str:
    (root / "one").symlink_to(outside)
    (root / "two").symlink_to("one/secret.txt")
    return "two"


ASKED: dict[str, Attack] = {
    "dots": lambda root, outside: "../outside/secret.txt",
    "dots in the middle": lambda root, outside: "x/y/../../../outside/secret.txt",
    "absolute": lambda root, outside: str(outside / "secret.txt"),
    "absolute through the workspace": lambda root, outside: f"{root}/../outside/secret.txt",
    "a name that begins like the workspace": lambda root, outside: f"{root}-more/secret.txt",
    "symlink to a file": link("innocent.txt", lambda outside: outside / "secret.txt"),
    "symlink to a directory": link("docs", lambda outside: outside, "/secret.txt"),
    "symlinked parent in the middle": nested_link,
    "symlink to a symlink": link_to_link,
    "symlink and dots": link("docs", lambda outside: outside / "deep", "/../secret.txt"),
    "trailing slash": lambda root, outside: "../outside/secret.txt/",
    "root of a process": lambda root, outside: f"/proc/self/root{outside}/secret.txt",
    "directory of a process": lambda root, outside: f"/proc/self/cwd/../../../../../../../..{outside}/secret.txt",
    "symlink to the root of a process": link("p", lambda outside: "/proc/self/root", "/etc/hostname"),
    "another case": lambda root, outside: str(root).upper() + "/a.txt",
    "home": lambda root, outside: "~/secret.txt",
    "a device": lambda root, outside: "/dev/zero",
    "doubled slashes": lambda root, outside: f"//{outside}//secret.txt",
}


@pytest.fixture
def outside(tmp_path: Path, root: Path) -> Path:
    directory = tmp_path / "outside"
    (directory / "deep").mkdir(parents=True)
    (directory / "secret.txt").write_text(SECRET)
    (tmp_path / "project-more").mkdir()
    (tmp_path / "project-more" / "secret.txt").write_text(SECRET)
    return directory


def untouched(outside: Path) -> bool:
    """Whether all is as it was outside."""
    return (outside / "secret.txt").read_text() == SECRET and sorted(os.listdir(outside)) == ["deep", "secret.txt"]


@pytest.mark.parametrize("attack", ASKED)
async def test_r32_what_leads_outside_is_asked_for_and_a_denial_holds(
    tools: FileTools, outside: Path, attack: str
) -> None:
    path = ASKED[attack](tools.root, outside)
    tools.denies = True
    for count, tool in enumerate(("view", "write", "edit", "multiedit", "ls", "glob", "grep"), 1):
        outcome = await tools.call(tool, **arguments(tool, path))
        assert [asked.path.is_relative_to(tools.root) for asked in tools.asked] == [False] * count, tool
        assert (outcome.content, outcome.ends_turn) == ("User denied permission", True)
    assert SECRET not in repr(tools.asked)
    assert untouched(outside)


def arguments(tool: str, path: str) -> dict[str, object]:
    """What a call needs."""
    changes = {"old_string": "secret", "new_string": "mine"}
    needed: dict[str, dict[str, object]] = {
        "view": {"file_path": path},
        "write": {"file_path": path, "content": "mine"},
        "edit": {"file_path": path, **changes},
        "multiedit": {"file_path": path, "edits": [changes]},
        "ls": {"path": path},
        "glob": {"path": path, "pattern": "*"},
        "grep": {"path": path, "pattern": "secret"},
    }
    return needed[tool]


def fifo(root: Path) -> str:
    os.mkfifo(root / "pipe")
    return "pipe"


def listening(root: Path) -> str:
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.getcwd()
        os.chdir(root)  # the whole path may be too long for a socket
        try:
            listener.bind("sock")
        finally:
            os.chdir(before)
    return "sock"


def loop(root: Path) -> str:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    return "a"


REFUSED: dict[str, tuple[Callable[[Path], str], str]] = {
    "nothing": (lambda root: "", "is not a path"),
    "blanks": (lambda root: "  ", "is not a path"),
    "a NUL": (lambda root: "a\0b", "is not a path"),
    "a very long path": (lambda root: "a/" * 5000, "is not a path"),
    "a very long name": (lambda root: "a" * 300, "File name too long"),
    "somebody's home": (lambda root: "~root/x", "write the directory out"),
    "a FIFO": (fifo, "is a FIFO, not a regular file"),
    "a socket": (listening, "is a socket, not a regular file"),
    "a directory": (lambda root: ".", "is a directory"),
    "a loop of symlinks": (loop, "is a symlink that leads in a circle"),
}


@pytest.mark.parametrize("attack", REFUSED)
async def test_r32_what_cannot_be_a_file_is_refused_without_a_wait(tools: FileTools, attack: str) -> None:
    make, problem = REFUSED[attack]
    path = make(tools.root)
    before = sorted(os.listdir(tools.root))
    for tool in ("view", "write", "edit", "multiedit"):
        assert problem in await tools.fails(tool, **arguments(tool, path)), tool
    assert (tools.asked, sorted(os.listdir(tools.root))) == ([], before)


async def test_r32_a_device_is_refused_even_if_it_is_allowed(tools: FileTools) -> None:
    assert "is a device, not a regular file" in await tools.fails("view", file_path="/dev/zero")
    assert "is a device, not a regular file" in await tools.fails("write", file_path="/dev/null", content="x")


async def test_r32_a_fifo_put_in_between_the_look_and_the_opening_is_refused(
    tools: FileTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tools.root / "a.txt"
    path.write_text("x")
    stat = os.stat

    def look_and_swap(name: str, **how: Any) -> os.stat_result:
        seen = stat(name, **how)
        if name == "a.txt" and path.is_file():
            path.unlink()
            os.mkfifo(path)
        return seen

    monkeypatch.setattr(os, "stat", look_and_swap)
    assert "is a FIFO, not a regular file" in await tools.fails("view", file_path="a.txt")


@pytest.mark.parametrize("tool", ["write", "edit"])
@pytest.mark.parametrize("swapped", ["file", "parent", "new parent"])
async def test_r32_a_symlink_that_is_put_in_after_the_check_is_refused(
    tools: FileTools, outside: Path, tool: str, swapped: str
) -> None:
    (tools.root / "dir").mkdir()
    target = tools.root / "dir" / "secret.txt"
    path = "dir/new/secret.txt" if swapped == "new parent" else "dir/secret.txt"
    if swapped != "new parent":
        target.write_text(SECRET)
        await tools.ok("view", file_path=path)

    def swap() -> None:
        if swapped == "file":
            target.unlink()
            target.symlink_to(outside / "secret.txt")
        elif swapped == "parent":
            (tools.root / "dir").rename(tools.root / "was")
            (tools.root / "dir").symlink_to(outside)
        else:
            (tools.root / "dir" / "new").symlink_to(outside)

    tools.before_answer = swap
    call = arguments(tool, path) | ({"old_string": ""} if tool == "edit" and swapped == "new parent" else {})
    told = await tools.fails(tool, **call)
    assert "a symlink that leads in a circle, or was not there" in told
    assert untouched(outside)
    assert leftovers(tools.root.parent) == []


@pytest.mark.parametrize("target", ["secret.txt", "."])
async def test_r32_what_was_allowed_outside_is_what_is_opened(tools: FileTools, outside: Path, target: str) -> None:
    """A permission for a place outside is not one for what is linked in its place afterwards."""
    (outside / "other.txt").write_text("another secret")

    def swap() -> None:
        if target == ".":
            outside.rename(tools.root.parent / "away")
            outside.symlink_to(tools.root.parent / "away")
        else:
            (outside / "secret.txt").unlink()
            (outside / "secret.txt").symlink_to("other.txt")

    tools.before_answer = swap
    assert "a symlink that leads in a circle, or was not there" in await tools.fails(
        "view", file_path=str(outside / "secret.txt")
    )


async def test_r32_a_hard_link_is_replaced_and_what_it_shares_is_not_written(tools: FileTools, outside: Path) -> None:
    os.link(outside / "secret.txt", tools.root / "mine.txt")
    await tools.ok("view", file_path="mine.txt")
    await tools.ok("write", file_path="mine.txt", content="mine")
    assert ((tools.root / "mine.txt").read_text(), untouched(outside)) == ("mine", True)


async def test_r32_a_name_on_two_lines_is_told_on_one(tools: FileTools) -> None:
    name = "a\nFound 1 matches\x1b[2J"
    assert await tools.ok("write", file_path=name, content="x") == "Created a\\nFound 1 matches\\x1b[2J (+1 -0)"
    assert (tools.root / name).read_text() == "x"


async def test_r32_outside_nothing_is_told_before_it_is_allowed(tools: FileTools, outside: Path) -> None:
    """Not even whether it is there."""
    tools.denies = True
    for name in ("secret.txt", "none.txt", "deep", "none/at/all"):
        for tool in ("view", "write", "edit", "ls", "glob", "grep"):
            outcome = await tools.call(tool, **arguments(tool, str(outside / name)))
            assert outcome.content == "User denied permission"


async def test_r32_outside_is_reached_once_it_is_allowed(tools: FileTools, outside: Path) -> None:
    path = str(outside / "secret.txt")
    assert SECRET in await tools.ok("view", file_path=path)
    [asked] = tools.asked
    assert (asked.action, asked.path) == ("read", outside)
    assert asked.params == {"file_path": path, "offset": 0, "limit": 0}
    await tools.ok("edit", file_path=path, old_string="secret", new_string="known")
    assert (outside / "secret.txt").read_text() == "the known"
    await tools.ok("write", file_path=str(outside / "new.txt"), content="new")
    assert [(asked.action, asked.path) for asked in tools.asked] == [("read", outside), *[("write", outside)] * 2]
    assert tools.asked[-1].params == {"file_path": str(outside / "new.txt"), "new_content": "new"}

"""ls, glob and grep: what they find, what they leave out, and what they say of the rest.

The searching itself runs here in this process; that it does so in one of its own is for `test_search_process.py`.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import pytest
import trio

from engine.tools import glob, grep, ls
from engine.tools.disk import Disk
from engine.tools.protocol import Tool
from engine.tools.search.request import Request
from engine.tools.search.worker import answer
from engine.tools.search_process import Searches
from tests.doubles.file_tools import FileTools


async def ask_here(root: int, request: Request) -> bytes:
    """Search in this process. Without ripgrep: with it, a search changes its process's directory."""
    await trio.lowlevel.checkpoint()
    asked = msgspec.json.decode(msgspec.json.encode(request), type=Request)
    return msgspec.json.encode(answer(root, asked))


@pytest.fixture
def search(tools: FileTools) -> FileTools:
    """The tools, with searches in this process."""
    disk = Disk(in_thread=False)
    here = Searches(disk, ripgrep="", ask=ask_here)
    kinds: Mapping[str, Callable[[Searches, Disk], Tool]] = {
        "ls": ls.LsTool,
        "glob": glob.GlobTool,
        "grep": grep.GrepTool,
    }
    tools.tools = {**tools.tools, **{name: kind(here, disk) for name, kind in kinds.items()}}
    return tools


def plant(root: Path, **files: str) -> None:
    """Files by their paths; `__` stands for a slash, and `_dot_` for a dot."""
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def age(root: Path, *names: str) -> None:
    """Give the files times of change: the first is the newest."""
    for seconds, name in enumerate(names):
        os.utime(root / name, (1000 - seconds, 1000 - seconds))


# ls


async def test_ls_draws_a_tree(search: FileTools) -> None:
    plant(search.root, src__a_dot_py="", src__deep__b_dot_py="", z="", _dot_hidden="")
    (search.root / "link").symlink_to("src")
    told = await search.ok("ls")
    assert told.splitlines() == [f"{search.root}/", "  link@", "  src/", "    a.py", "    deep/", "      b.py", "  z"]
    assert await search.metadata("ls", path="src") == {"number_of_files": 3, "truncated": False}


async def test_ls_leaves_out_what_it_is_told_to(search: FileTools) -> None:
    plant(search.root, src__a_dot_py="", src__b_dot_js="", out__c="", _dot_gitignore="*.log\n", x_dot_log="")
    told = await search.ok("ls", ignore=["*.js", "out/"])
    assert told.splitlines()[1:] == ["  src/", "    a.py"]
    assert (await search.ok("ls", depth=1)).splitlines()[1:] == ["  out/", "  src/"]


async def test_ls_is_cut_level_by_level_and_says_so(search: FileTools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ls, "ENTRIES_MAX", 4)
    plant(search.root, a__1="", a__2="", a__3="", b="", c="")
    told = await search.ok("ls")
    assert told.splitlines()[1:5] == ["  a/", "    1", "  b", "  c"]
    assert "There is more: 4 entries are shown" in told
    assert await search.metadata("ls") == {"number_of_files": 4, "truncated": True}


# glob


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.py", ["a.py", "src/b.py", "src/deep/c.py"]),
        ("src/*.py", ["src/b.py"]),
        ("src/**/*.py", ["src/b.py", "src/deep/c.py"]),
        ("**/c.*", ["src/deep/c.py"]),
        ("*.{js,ts}", ["d.js", "src/e.ts"]),
        ("{src/{b,x},d}.{py,js}", ["d.js", "src/b.py"]),
        ("a?py", ["a.py"]),
        ("[ad].*", ["a.py", "d.js"]),
        ("/a.py", ["a.py"]),
        ("!a.py", []),
        ("nothing", []),
    ],
)
async def test_glob_finds_files_by_name(search: FileTools, pattern: str, found: list[str]) -> None:
    names = ("a.py", "d.js", "src/b.py", "src/e.ts", "src/deep/c.py", ".hidden/f.py", "src/.g.py")
    plant(search.root, **dict.fromkeys(names, ""))
    (search.root / "link.py").symlink_to("a.py")
    told = await search.ok("glob", pattern=pattern)
    assert told.splitlines() == (found or ["No files found."])


async def test_glob_says_what_it_cannot_take(search: FileTools) -> None:
    plant(search.root, a="")
    assert "alternatives" in await search.fails("glob", pattern="{a,b}" * 10)
    assert "is a file" in await search.fails("glob", pattern="*", path="a")
    assert "there is no none" in await search.fails("glob", pattern="*", path="none")
    assert "pattern" in await search.fails("glob", pattern="")


async def test_glob_gives_the_shortest_first_and_says_if_there_are_more(
    search: FileTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(glob, "FILES_MAX", 2)
    plant(search.root, ccc="", bb="", a__long__name="")
    told = await search.ok("glob", pattern="*")
    assert told.splitlines()[:2] == ["bb", "ccc"]
    assert "There is more: the first 2 are shown" in told
    assert await search.metadata("glob", pattern="bb") == {"number_of_files": 1, "truncated": False}


# grep


async def test_grep_groups_lines_by_file_the_newest_first(search: FileTools) -> None:
    plant(search.root, old_dot_py="x = 1\n", new_dot_py="y\nxx = 2\r\n  x\n")
    age(search.root, "new.py", "old.py")
    new, old = "new.py:\n  Line 2, Char 1: xx = 2\n  Line 3, Char 3:   x", "old.py:\n  Line 1, Char 1: x = 1"
    assert await search.ok("grep", pattern="x") == f"Found 3 matches\n\n{new}\n\n{old}"
    assert await search.metadata("grep", pattern="x") == {"number_of_matches": 3, "truncated": False}


async def test_grep_takes_a_file_a_glob_and_plain_text(search: FileTools) -> None:
    plant(search.root, a_dot_py="f(x)\n", b_dot_js="f(x)\n", src__c_dot_py="f(x)\n", _dot_env="f(x)\n")
    assert "b.js" not in await search.ok("grep", pattern="f", include="*.py")
    assert "Found 3" in await search.ok("grep", pattern="f(x)", literal_text=True)
    assert await search.ok("grep", pattern="f(x)") == "No matches found."
    assert "src/c.py:" in await search.ok("grep", pattern="f", path="src")
    assert ".env:" in await search.ok("grep", pattern="f", path=".env")  # asked for by name
    assert "not a regular expression" in await search.fails("grep", pattern="f(")


async def test_grep_cuts_what_is_too_much_and_says_so(search: FileTools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grep, "MATCHES_MAX", 3)
    plant(search.root, a="x\n" * 3, b="y" * 600 + "\n")
    assert await search.metadata("grep", pattern="x") == {"number_of_matches": 3, "truncated": False}
    plant(search.root, c="x\n")
    told = await search.ok("grep", pattern="x")
    assert "Found 3 matches" in told
    assert "There is more than this" in told
    assert f"Line 1, Char 1: {'y' * 500}…" in await search.ok("grep", pattern="y+")


async def test_grep_leaves_out_what_is_binary_or_large_and_reads_what_is_not_utf8(
    search: FileTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.tools.search.tree.FILE_MAX", 100)
    (search.root / "binary").write_bytes(b"needle\0")
    (search.root / "large").write_bytes(b"needle\n" * 20)
    (search.root / "latin").write_bytes(b"caf\xe9 needle\n")
    (search.root / "mark").write_bytes(b"\xef\xbb\xbfneedle\n")
    told = await search.ok("grep", pattern="^.*needle$")
    assert ("binary" in told, "large" in told, "latin:" in told, "mark:\n  Line 1, Char 1: needle" in told) == (
        False, False, True, True,
    )  # fmt: skip


async def test_a_search_does_not_follow_symlinks_or_wait_for_a_fifo(search: FileTools, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("needle\n")
    (search.root / "file").symlink_to(tmp_path / "secret.txt")
    (search.root / "directory").symlink_to(tmp_path)
    os.mkfifo(search.root / "pipe")
    assert await search.ok("grep", pattern="needle") == "No matches found."
    assert await search.ok("glob", pattern="*") == "No files found."
    assert (await search.ok("ls")).splitlines()[1:] == ["  directory@", "  file@", "  pipe@"]


async def test_a_name_is_told_on_one_line(search: FileTools) -> None:
    plant(search.root, **{"a\nb": "x", "c\x1b[2J": "x"})
    (search.root / os.fsdecode(b"d\xff")).write_text("x")
    assert (await search.ok("glob", pattern="*")).splitlines() == ["a\\nb", "c\\x1b[2J", "d\\xff"]
    assert (await search.ok("ls")).splitlines()[1:] == ["  a\\nb", "  c\\x1b[2J", "  d\\xff"]
    assert "Found 3 matches" in await search.ok("grep", pattern="x")


async def test_outside_is_searched_once_it_is_allowed(search: FileTools, tmp_path: Path) -> None:
    plant(tmp_path / "other", a_dot_py="needle\n", sub__b_dot_py="needle\n")
    other = tmp_path / "other"
    assert f"{other}/sub/b.py" in await search.ok("glob", pattern="*.py", path=str(other))
    assert f"{other}/sub/b.py:" in await search.ok("grep", pattern="needle", path=str(other))
    assert f"{other}/a.py:" in await search.ok("grep", pattern="needle", path=str(other / "a.py"))
    assert "  sub/" in await search.ok("ls", path=str(other))
    told = [(asked.action, asked.path) for asked in search.asked]
    assert told == [("list", other), ("read", other), ("read", other), ("list", other)]
    assert search.asked[-1].params == {"path": str(other), "ignore": [], "depth": 0}


# ignore files

IGNORED = {
    "*.log": ("a.log", "sub/b.log"),
    "/top.txt": ("top.txt",),
    "build/": ("build/x.txt", "sub/build/y.txt"),
    "sub/*.tmp": ("sub/c.tmp",),
    "*.txt\n!keep.txt": ("top.txt", "build/x.txt", "sub/build/y.txt", "sub/top.txt"),
    "# a comment\n\n  \n\\#odd": ("#odd",),
    "[": (),
}
NAMES = {name for names in IGNORED.values() for name in names} | {"keep.txt", "sub/keep.txt", "plain"}


@pytest.mark.parametrize("rules", IGNORED)
async def test_what_an_ignore_file_excludes_is_left_out(search: FileTools, rules: str) -> None:
    plant(search.root, **dict.fromkeys(NAMES, "x"))
    (search.root / ".gitignore").write_text(rules)
    found = await search.ok("glob", pattern="*")
    assert set(found.splitlines()) == NAMES - set(IGNORED[rules])
    below = {name.removeprefix("sub/") for name in NAMES - set(IGNORED[rules]) if name.startswith("sub/")}
    told = await search.ok("glob", pattern="*", path="sub")  # the rules above count too
    assert set(told.splitlines()) == {f"sub/{name}" for name in below}


async def test_nearer_rules_win_and_ignore_files_win_over_gitignore(search: FileTools) -> None:
    plant(search.root, **dict.fromkeys(("a.x", "sub/a.x", "sub/b.x", "c.y", "sub/c.y"), ""))
    (search.root / ".gitignore").write_text("*.x\n*.y\n")
    (search.root / "sub/.gitignore").write_text("!a.x\n")
    (search.root / ".ignore").write_text("!c.y\n")
    assert (await search.ok("glob", pattern="*")).splitlines() == ["c.y", "sub/a.x", "sub/c.y"]


async def test_what_is_ignored_can_be_asked_for_by_name(search: FileTools) -> None:
    plant(search.root, **dict.fromkeys(("vendor/a/b.py", "vendor/c.log"), ""))
    (search.root / ".gitignore").write_text("vendor/\n*.log\n")
    assert await search.ok("glob", pattern="*") == "No files found."
    assert (await search.ok("glob", pattern="*", path="vendor")).splitlines() == ["vendor/c.log", "vendor/a/b.py"]


async def test_what_lies_too_deep_is_left_out_and_it_is_said(
    search: FileTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.tools.search.tree.DEPTH_MAX", 3)
    plant(search.root, a__b__c__d__e="", a__b__f="")
    assert await search.metadata("ls") == {"number_of_files": 4, "truncated": True}
    assert (await search.ok("glob", pattern="*")).splitlines()[0] == "a/b/f"

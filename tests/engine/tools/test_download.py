"""`download`: whole files, from public addresses alone, over nothing that was not seen; canceled, it leaves no part."""

from collections.abc import AsyncIterator
from functools import partial
from itertools import count
from pathlib import Path

import httpcore2
import pytest
import trio

from engine.tools import download
from engine.tools.download import DownloadTool
from engine.tools.view import ViewTool
from engine.tools.web_reader import WebReader
from tests.doubles.file_tools import Asked, FileTools, leftovers, open_file_tools
from tests.doubles.site import Site, open_site
from tests.doubles.stepping import cancel_at

URL = "http://site.test/a"
BYTES = b"\x89PNG\r\n\x1a\n\0\xff"


def answering(body: bytes, *, head: bytes = b"Content-Type: image/png\r\n", length: int | None = None) -> WebReader:
    """A reader whose every connection gets this answer."""
    size = len(body) if length is None else length
    answer = b"HTTP/1.1 200 OK\r\n" + head + b"Content-Length: %d\r\n\r\n" % size
    return WebReader(httpcore2.AsyncMockBackend([answer, *(body[at : at + 4] for at in range(0, len(body), 4))]))


def names_in(directory: Path) -> list[str]:
    """What is in a directory."""
    return [path.name for path in directory.iterdir()]


def with_reader(tools: FileTools, reader: WebReader) -> FileTools:
    """The tools, with a `download` that reads by this."""
    files = tools.workspace.files
    tools.tools = {
        **tools.tools,
        "download": DownloadTool(reader, files, files.disk),
        "view": ViewTool(files, files.disk),
    }
    return tools


@pytest.fixture
async def tools(root: Path, autojump_clock: object) -> AsyncIterator[FileTools]:
    """The built-in tools; what is downloaded is an image."""
    async with open_file_tools(root) as opened:
        yield with_reader(opened, answering(BYTES))


async def test_what_is_there_is_saved_byte_for_byte_with_the_directories_above(tools: FileTools) -> None:
    said = await tools.ok("download", url=URL, file_path="new/deep/a.png")
    assert (tools.root / "new/deep/a.png").read_bytes() == BYTES
    assert said == f"Downloaded {len(BYTES)} bytes to new/deep/a.png (image/png)."
    params = {"url": URL, "file_path": str(tools.root / "new/deep/a.png"), "timeout": 300}
    assert tools.asked == [Asked("download", tools.root / "new/deep", params)]
    assert leftovers(tools.root) == []
    assert "png" in await tools.ok("download", url=URL, file_path="new/deep/a.png"), "it knows what it has written"


async def test_a_file_that_was_not_seen_is_not_replaced_and_nobody_is_asked(tools: FileTools) -> None:
    (tools.root / "a.txt").write_text("mine")
    assert "View it before" in await tools.fails("download", url=URL, file_path="a.txt")
    await tools.ok("view", file_path="a.txt")
    (tools.root / "a.txt").write_text("changed")
    assert "has changed" in await tools.fails("download", url=URL, file_path="a.txt")
    assert (tools.asked, (tools.root / "a.txt").read_text()) == ([], "changed")
    (tools.root / "d").mkdir()
    assert "is a directory" in await tools.fails("download", url=URL, file_path="d")


async def test_a_file_that_was_seen_is_replaced_and_what_was_there_is_kept(tools: FileTools) -> None:
    path = tools.root / "a.txt"
    path.write_text("mine")
    path.chmod(0o640)
    await tools.ok("view", file_path="a.txt")
    await tools.ok("download", url=URL, file_path="a.txt")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (BYTES, 0o640)
    assert await tools.versions("a.txt") == [(0, "mine")]
    assert "cannot be taken back" in await tools.ok("download", url=URL, file_path="a.txt")


async def test_a_file_that_changes_while_the_person_thinks_is_not_replaced(tools: FileTools) -> None:
    path = tools.root / "a.txt"
    path.write_text("mine")
    await tools.ok("view", file_path="a.txt")

    def change() -> None:
        path.write_text("theirs")

    tools.before_answer = change
    assert "has changed" in await tools.fails("download", url=URL, file_path="a.txt")
    assert path.read_text() == "theirs"


async def test_a_file_that_appears_during_the_download_stays(root: Path, autojump_clock: object) -> None:
    class Slow(httpcore2.AsyncMockBackend):
        async def connect_tcp(self, *given: object, **more: object) -> httpcore2.AsyncNetworkStream:
            (root / "a.txt").write_text("theirs")
            return await super().connect_tcp(*given, **more)  # type: ignore[arg-type]

    async with open_file_tools(root) as tools:
        reader = WebReader(Slow([b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine"]))
        said = await with_reader(tools, reader).fails("download", url=URL, file_path="a.txt")
        assert "somebody else" in said
        assert ((root / "a.txt").read_text(), leftovers(root)) == ("theirs", [])


async def test_r32_outside_of_the_workspace_is_asked_for_before_anything_is_told(tools: FileTools) -> None:
    outside = tools.root.parent / "there.txt"
    outside.write_text("secret")
    tools.denies = True
    assert "denied" in await tools.fails("download", url=URL, file_path=str(outside))
    assert [asked.path for asked in tools.asked] == [tools.root.parent]
    (tools.root / "link").symlink_to(tools.root.parent)
    assert "denied" in await tools.fails("download", url=URL, file_path="link/new.txt")
    assert [asked.path for asked in tools.asked] == [tools.root.parent] * 2
    assert outside.read_text() == "secret"


@pytest.mark.parametrize("told", [True, False])
async def test_what_is_too_large_is_not_saved(
    root: Path, autojump_clock: object, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    monkeypatch.setattr(download, "BYTES_MAX", 10)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8\r\n12345678\r\n" * 2 + b"0\r\n\r\n"
    reader = answering(b"x" * 11) if told else WebReader(httpcore2.AsyncMockBackend([chunked]))
    async with open_file_tools(root) as tools:
        said = await with_reader(tools, reader).fails("download", url=URL, file_path="new/a.bin")
        assert "more than 10 bytes" in said
        assert names_in(root) == []


async def test_a_download_that_is_cut_off_is_not_saved(root: Path, autojump_clock: object) -> None:
    async with open_file_tools(root) as tools:
        tools = with_reader(tools, answering(b"half", length=8))
        assert "cannot be read" in await tools.fails("download", url=URL, file_path="new/a.bin")
        assert names_in(root) == []


@pytest.mark.parametrize("timeout", [0, 601, "soon"])
async def test_a_time_that_is_none_is_refused(tools: FileTools, timeout: object) -> None:  # noqa: ASYNC109
    assert "timeout" in await tools.fails("download", url=URL, file_path="a", timeout=timeout)
    assert tools.asked == []


@pytest.mark.parametrize("exists", [True, False])
async def test_r10_a_cancel_at_any_step_leaves_the_old_file_or_the_new_one(tools: FileTools, exists: bool) -> None:
    found: set[bytes | None] = set()
    for step in count(1):
        path = tools.root / f"{step}" / "a.txt"
        if exists:
            path.parent.mkdir()
            path.write_text("old")
            await tools.ok("view", file_path=str(path))
        reached = await cancel_at(step, tools.call("download", url=URL, file_path=str(path)))
        await tools.workspace._seams.log.wait_drained()
        found.add(path.read_bytes() if path.exists() else None)
        assert leftovers(tools.root) == []
        assert path.exists() or not path.parent.exists()
        if path.exists() and path.read_bytes() == BYTES:  # what was made is known to the session
            assert not (await tools.call("download", url=URL, file_path=str(path))).is_error
        if not reached:
            break
    assert found == {b"old" if exists else None, BYTES}


def tool_over(tools: FileTools, site: Site, *allowed: str) -> DownloadTool:
    return DownloadTool(site.reader(*allowed), tools.workspace.files, tools.workspace.files.disk)


@pytest.mark.slow
async def test_r32_no_address_that_is_not_public_is_reached_not_by_a_redirect_nor_by_a_second_answer(
    root: Path,
) -> None:
    async with open_file_tools(root) as tools, open_site() as (site, url):
        tools.tools = {"download": tool_over(tools, site, "127.0.0.1")}
        site.names["inside.test"] = ["169.254.169.254"]
        site.says("/meta", "", status="302 Found", Location="http://inside.test/meta")
        site.says("/a", "fine")
        assert "not a public address" in await tools.fails("download", url=f"{url}/meta", file_path="a")
        await tools.ok("download", url=f"{url}/a", file_path="a")
        site.names["site.test"] = ["10.0.0.1"]
        assert "not a public address" in await tools.fails("download", url=f"{url}/a", file_path="b")
        tools.tools = {"download": tool_over(tools, site)}
        site.names["site.test"] = ["127.0.0.1"]
        assert "not a public address" in await tools.fails("download", url=f"{url}/a", file_path="b")
        assert (site.asked, names_in(root)) == (["/meta", "/a"], ["a"])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["cancel", "timeout"])
async def test_r10_a_download_that_is_canceled_in_the_middle_closes_its_connection_and_leaves_nothing(
    root: Path, how: str
) -> None:
    async with open_file_tools(root) as tools, open_site() as (site, url):
        tools.tools = {"download": tool_over(tools, site, "127.0.0.1")}
        site.answers["/a"] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
        site.holds.add("/a")
        if how == "timeout":
            said = await tools.fails("download", url=f"{url}/a", file_path="new/a", timeout=1)
            assert "within 1 seconds" in said
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(tools.call, "download", url=f"{url}/a", file_path="new/a"))
                while not leftovers(root):  # noqa: ASYNC110  (what is on the disk, no event tells)
                    await trio.sleep(0.01)
                nursery.cancel_scope.cancel()
        while site.open:  # noqa: ASYNC110
            await trio.sleep(0.01)
        assert names_in(root) == []

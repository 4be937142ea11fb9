"""`fetch` over real HTTP, from a server of this machine that is allowed by hand; nothing else that is not public is
reached, by no way (R32)."""

from functools import partial
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio

from engine.errors import ToolProblem
from engine.tools import fetch as fetching
from engine.tools.fetch import SHOWN_MAX, FetchTool
from engine.tools.public_network import PublicNetwork, is_public
from engine.tools.web_reader import WebReader
from tests.doubles.site import Site, open_site
from tests.engine.tools.calling import Person, call

pytestmark = pytest.mark.slow
HTML = (
    "<html><head><style>p{}</style><script>x</script></head><body><h1>Title</h1><p>A <b>bold</b> word</p></body></html>"
)


def fetch(site: Site, *allowed: str) -> FetchTool:
    """The tool, with these networks allowed."""
    return FetchTool(site.reader(*allowed))


@pytest.mark.parametrize(
    ("format", "shown"),
    [("markdown", "# Title\n\nA **bold** word"), ("text", "Title\nA\nbold\nword"), ("html", HTML)],
)
async def test_a_page_is_given_as_it_is_wanted(tmp_path: Path, format: str, shown: str) -> None:
    person = Person()
    async with open_site() as (site, url):
        site.says("/a", HTML, kind="text/html; charset=utf-8")
        said = await call(fetch(site, "127.0.0.1"), tmp_path, person, url=f"{url}/a", format=format)
        assert (said.content, said.is_error) == (shown, False)
        assert person.asked == [("fetch", tmp_path, {"url": f"{url}/a", "format": format, "timeout": 30})]


async def test_a_page_is_read_in_its_own_encoding_and_a_long_one_is_cut_off(tmp_path: Path) -> None:
    async with open_site() as (site, url):
        tool = fetch(site, "127.0.0.1")
        site.says("/latin", "grüezi".encode("latin-1"), kind="text/plain; charset=iso-8859-1")
        assert (await call(tool, tmp_path, url=f"{url}/latin", format="text")).content == "grüezi"
        site.says("/long", "ü" * SHOWN_MAX, kind="text/plain")
        said = (await call(tool, tmp_path, url=f"{url}/long", format="text")).content
        assert said.count("ü") == SHOWN_MAX // 2
        assert said.endswith("bytes]")


async def test_of_a_page_that_is_too_long_the_rest_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "READ_MAX", 100)
    async with open_site() as (site, url):
        site.answers["/a"] = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 1000
        site.holds.add("/a")
        said = (await call(fetch(site, "127.0.0.1"), tmp_path, url=f"{url}/a", format="text")).content
        assert said.startswith("x" * 100 + "\n\n[cut off")
        while site.open:  # noqa: ASYNC110
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("kind", "body"),
    [("text/plain", b"\xff\xfe"), ("application/zip", b"PK\0\0"), ("text/plain; charset=nonsense", b"a")],
)
async def test_what_is_no_text_is_not_shown(tmp_path: Path, kind: str, body: bytes) -> None:
    async with open_site() as (site, url):
        site.says("/", body, kind=kind)
        said = await call(fetch(site, "127.0.0.1"), tmp_path, url=f"{url}/", format="text")
        assert said.is_error
        assert "use download" in said.content


async def test_redirects_are_followed_and_end(tmp_path: Path) -> None:
    async with open_site() as (site, url):
        tool = fetch(site, "127.0.0.1")
        site.says("/a", "", status="302 Found", Location="/b")
        site.says("/b", "there", kind="text/plain")
        assert (await call(tool, tmp_path, url=f"{url}/a", format="text")).content == "there"
        site.says("/loop", "", status="301 Moved", Location="/loop")
        assert "redirects" in (await call(tool, tmp_path, url=f"{url}/loop", format="text")).content
        assert site.asked.count("/loop") == 6


REFUSED = [
    "ftp://site.test/", "file:///etc/passwd", "http://", "http:///x", "//site.test/", "http://ann:pw@site.test/",
    "http://site.test:99999/", "http://[::1", "http://site.test/ä", "http://site.test/ x", "javascript:alert(1)",
]  # fmt: skip


@pytest.mark.parametrize("url", REFUSED)
async def test_r32_a_url_that_is_none_is_refused_before_anybody_is_asked(tmp_path: Path, url: str) -> None:
    person = Person()
    async with open_site() as (site, _):
        assert (await call(fetch(site), tmp_path, person, url=url, format="text")).is_error
        assert (person.asked, site.asked) == ([], [])


PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1", "198.18.0.1", "192.0.2.1",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
async def test_r32_no_name_leads_to_an_address_that_is_not_public(tmp_path: Path, address: str) -> None:
    async with open_site() as (site, url):
        site.names["site.test"] = [address]
        said = await call(fetch(site), tmp_path, url=url, format="text")
        assert said.is_error
        assert "not a public address" in said.content
        assert site.asked == []


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_r32_a_public_address_is_one(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "localhost", "[::1]", "[::ffff:7f00:1]"])
async def test_r32_this_machine_by_any_of_its_names_is_refused(tmp_path: Path, host: str) -> None:
    async with open_site() as (site, _):
        tool = FetchTool(WebReader(PublicNetwork()))  # with the names as the system knows them
        assert (await call(tool, tmp_path, url=f"http://{host}:{site.port}/", format="text")).is_error
        assert site.asked == []


async def test_r32_one_private_address_among_public_ones_is_enough_to_refuse(tmp_path: Path) -> None:
    async with open_site() as (site, url):
        site.names["site.test"] = ["127.0.0.1", "10.0.0.1"]
        assert (await call(fetch(site, "127.0.0.1"), tmp_path, url=url, format="text")).is_error
        assert site.asked == []


async def test_r32_a_redirect_does_not_lead_where_a_url_could_not(tmp_path: Path) -> None:
    async with open_site() as (site, url):
        tool = fetch(site, "127.0.0.1")
        site.names["inside.test"] = ["169.254.169.254"]
        for target in ("http://inside.test/meta", "file:///etc/passwd", "http://ann:pw@site.test/", "http://[::1"):
            site.says("/a", "", status="302 Found", Location=target)
            assert (await call(tool, tmp_path, url=f"{url}/a", format="text")).is_error
        assert site.asked == ["/a"] * 4


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".test"])
async def test_a_name_that_no_name_server_could_have_is_the_models_to_know(host: str) -> None:
    with pytest.raises(ToolProblem, match="cannot be resolved"):
        async with WebReader(PublicNetwork()).open(f"http://{host}/", timeout_s=1):
            pass


async def test_r32_a_second_answer_of_the_name_server_is_looked_at_too(tmp_path: Path) -> None:
    async with open_site() as (site, url):
        tool = fetch(site, "127.0.0.1")
        site.says("/a", "fine", kind="text/plain")
        assert not (await call(tool, tmp_path, url=f"{url}/a", format="text")).is_error
        site.names["site.test"] = ["10.0.0.1"]
        assert (await call(tool, tmp_path, url=f"{url}/a", format="text")).is_error


@pytest.mark.parametrize(
    ("path", "problem"), [("/missing", "status 404"), ("/cut", "cannot be read"), ("/hang", "within 1 seconds")]
)
async def test_what_goes_wrong_is_the_models_to_know(tmp_path: Path, path: str, problem: str) -> None:
    async with open_site() as (site, url):
        site.says("/missing", "no", status="404 Not Found")
        site.answers["/cut"] = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"
        said = await call(fetch(site, "127.0.0.1"), tmp_path, url=f"{url}{path}", format="text", timeout=1)
        assert said.is_error
        assert problem in said.content


async def test_r10_a_canceled_fetch_closes_its_connection(tmp_path: Path) -> None:
    async with open_site() as (site, url):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(call, fetch(site, "127.0.0.1"), tmp_path, url=f"{url}/hang", format="text"))
                while not site.asked:  # noqa: ASYNC110  (what another side of a socket does, no event tells)
                    await trio.sleep(0.01)
                assert site.open == 1
                scope.cancel()
        while site.open:  # noqa: ASYNC110
            await trio.sleep(0.01)

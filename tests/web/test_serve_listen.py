"""Addresses and listening sockets: modes, stale files, live servers, and errors that say what to do."""

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from engine.errors import ConfigInvalid
from web import serve
from web.address import Address, TcpAddress, UnixAddress, parse_address
from web.connection_stream import ConnectionStream
from web.listen import close_listener, open_listeners

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp://127.0.0.1:2180", TcpAddress("127.0.0.1", 2180)),
        ("tcp://localhost:0", TcpAddress("localhost", 0)),
        ("tcp://[::1]:80", TcpAddress("::1", 80)),
        ("tcp://127.0.0.1:2180/", TcpAddress("127.0.0.1", 2180)),
        ("unix:///run/x.sock", UnixAddress(Path("/run/x.sock"))),
        ("unix://x.sock", UnixAddress(Path("x.sock").absolute())),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["tcp://127.0.0.1:2180", "tcp://[::1]:80", "unix:///run/x.sock"])
def test_an_address_is_written_as_it_was_read(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("127.0.0.1:2180", "write tcp://"),
        ("http://127.0.0.1:2180", "write tcp://"),
        ("", "write tcp://"),
        ("tcp://127.0.0.1", "no port"),
        ("tcp://:2180", "no address"),
        ("tcp://127.0.0.1:99999", "no usable address"),
        ("tcp://127.0.0.1:x", "no usable address"),
        ("tcp://[::1:80", "no usable address"),
        ("tcp://me:secret@127.0.0.1:80", "more than"),
        ("tcp://127.0.0.1:80/base", "more than"),
        ("unix://", "needs the path"),
        ("unix:///a\0b", "needs the path"),
        ("unix:///" + "x" * 104, "105 bytes"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigInvalid, match=says) as refused:
        parse_address(text)
    assert refused.value.field == "host"


def test_the_longest_socket_path_is_accepted() -> None:
    assert len(str(UnixAddress(Path("/" + "x" * 103)).path)) == 104
    parse_address("unix:///" + "x" * 103)


async def test_a_unix_socket_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    for mask in (0o000, 0o777):
        before = os.umask(mask)
        try:
            async with open_listeners((UnixAddress(path),), backlog=1) as [listener]:
                assert stat.S_IMODE(path.lstat().st_mode) == 0o600
                assert (listener.transport, listener.is_local) == ("unix", True)
        finally:
            os.umask(before)
        assert not path.exists()


async def test_the_socket_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with open_listeners((UnixAddress(path),), backlog=1):
        stream = await trio.open_unix_socket(str(path))
        await stream.aclose()


async def test_the_socket_of_a_live_server_is_left_alone(tmp_path: Path) -> None:
    address = UnixAddress(tmp_path / "x.sock")
    async with open_listeners((address,), backlog=1):
        before = address.path.lstat().st_ino
        with pytest.raises(ConfigInvalid, match="live server"):
            async with open_listeners((address,), backlog=1):
                pass
        assert address.path.lstat().st_ino == before


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    path.write_text("precious")
    with pytest.raises(ConfigInvalid, match="not a socket"):
        async with open_listeners((UnixAddress(path),), backlog=1):
            pass
    assert path.read_text() == "precious"


async def test_the_directory_of_a_socket_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="create it first"):
        async with open_listeners((UnixAddress(tmp_path / "no" / "x.sock"),), backlog=1):
            pass


async def test_a_server_that_leaves_late_does_not_remove_its_successors_socket(tmp_path: Path) -> None:
    """Crush's client deletes a socket file that it takes for stale, and another server may then take the path."""
    address = UnixAddress(tmp_path / "x.sock")
    async with open_listeners((address,), backlog=1) as [early]:
        address.path.unlink()
        async with open_listeners((address,), backlog=1):
            close_listener(early)
            assert address.path.exists()


async def test_closing_twice_is_closing_once(tmp_path: Path) -> None:
    async with open_listeners((UnixAddress(tmp_path / "x.sock"),), backlog=1) as [listener]:
        close_listener(listener)
        close_listener(listener)


async def test_servers_that_start_at_the_same_moment_get_one_winner(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    won: list[int] = []
    lost: list[int] = []
    done = trio.Event()

    async def start(number: int) -> None:
        try:
            async with open_listeners((UnixAddress(path),), backlog=1):
                won.append(number)
                await done.wait()
        except ConfigInvalid:
            lost.append(number)
        if len(lost) == 4:
            done.set()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(start, number)
    assert (len(won), len(lost)) == (1, 4)


async def test_a_port_of_nought_becomes_a_real_one_on_every_address_of_a_name() -> None:
    async with open_listeners((TcpAddress("localhost", 0),), backlog=1) as listeners:
        ports = {listener.socket.getsockname()[1] for listener in listeners}
        assert len(ports) == 1
        assert 0 not in ports
        assert all(listener.is_local for listener in listeners)
        assert listeners[0].url == f"http://localhost:{ports.pop()}"


async def test_an_address_of_every_interface_is_not_local() -> None:
    async with open_listeners((TcpAddress("0.0.0.0", 0),), backlog=1) as [listener]:
        assert not listener.is_local
        assert listener.transport == "tcp"


async def test_a_taken_port_is_refused_with_advice() -> None:
    async with open_listeners((TcpAddress("127.0.0.1", 0),), backlog=1) as [listener]:
        taken = listener.address
        with pytest.raises(ConfigInvalid, match="another program is listening there"):
            async with open_listeners((taken,), backlog=1):
                pass


async def test_all_addresses_are_listened_on_or_none(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    async with open_listeners((TcpAddress("127.0.0.1", 0),), backlog=1) as [listener]:
        with pytest.raises(ConfigInvalid):
            async with open_listeners((UnixAddress(path), listener.address), backlog=1):
                pass
    assert not path.exists()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-name.invalid"])
async def test_an_address_that_is_not_here_is_refused(host: str) -> None:
    with pytest.raises(ConfigInvalid, match=r"no network of this machine|cannot resolve"):
        async with open_listeners((TcpAddress(host, 0),), backlog=1):
            pass


async def test_a_tcp_connection_sends_at_once_and_gives_up_a_peer_that_vanished() -> None:
    async with open_listeners((TcpAddress("127.0.0.1", 0),), backlog=1) as [listener]:
        peer = await trio.open_tcp_stream(*listener.socket.getsockname())
        await trio.lowlevel.wait_readable(listener.socket)
        accepted = ConnectionStream(listener.socket.accept()[0], patience_s=20)
        assert accepted.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
        accepted.abort()
        await peer.aclose()


async def test_an_accept_loop_whose_listener_was_closed_meanwhile_ends() -> None:
    """It had been woken by a caller, and was not waiting when the server began to leave."""

    class Room:
        async def wait_room(self) -> None:
            await trio.lowlevel.checkpoint()

    with trio.fail_after(10):
        addresses = (TcpAddress("127.0.0.1", 0),)
        async with open_listeners(addresses, backlog=1) as [listener], trio.open_nursery() as nursery:
            close_listener(listener)
            await serve._accept(listener, Room(), nursery)  # type: ignore[arg-type]

"""Listening sockets, bound by us: so their options, their modes and their end are ours to decide."""

import errno
import fcntl
import ipaddress
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import msgspec
import structlog
import trio

from engine.errors import ConfigInvalid
from web.address import Address, TcpAddress, UnixAddress

log = structlog.get_logger()

PROBE_S = 0.2  # a live server accepts a local connection at once; Crush waits as long
DIRECTORY_LOCK_TRIES = 50  # 20 ms apart: about as long as five servers need to start at the same moment
SOCKET_MODE = 0o600  # its owner, nobody else


class Listener(msgspec.Struct, frozen=True, eq=False):
    """One listening socket, not blocking. Closed by whoever opened it."""

    socket: socket.socket
    address: Address  # with the real port
    file: tuple[int, int] | None = None  # of a Unix socket: the device and inode of the file made for it

    @property
    def transport(self) -> str:
        """`tcp` or `unix`."""
        return "unix" if isinstance(self.address, UnixAddress) else "tcp"

    @property
    def url(self) -> str:
        """What a person types into a browser, or for a Unix socket its address."""
        return str(self.address).replace("tcp://", "http://", 1)

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        if isinstance(self.address, UnixAddress):
            return True
        return ipaddress.ip_address(self.socket.getsockname()[0].partition("%")[0]).is_loopback


@asynccontextmanager
async def open_listeners(addresses: tuple[Address, ...], *, backlog: int) -> AsyncIterator[list[Listener]]:
    """Listen on every address, or on none. Connections that come before anybody accepts wait in the backlog.

    On leaving, the sockets are closed, and a Unix socket's file is removed if it is still the one made here. Raises
    ConfigInvalid with what to do about it.
    """
    listeners: list[Listener] = []
    try:
        for address in addresses:
            if isinstance(address, UnixAddress):
                listeners.append(await _listen_unix(address, backlog))
            else:
                listeners.extend(await _listen_tcp(address, backlog))
        yield listeners
    finally:
        for listener in listeners:
            close_listener(listener)


def close_listener(listener: Listener) -> None:
    """Stop listening. The file goes before the socket: nobody may find a path that leads to nothing. Idempotent."""
    if listener.socket.fileno() == -1:
        return
    if isinstance(listener.address, UnixAddress):
        # The number cannot have been given to another file meanwhile: the socket, still open, holds on to it.
        with suppress(FileNotFoundError):
            if _identity(listener.address.path) == listener.file:
                listener.address.path.unlink()
    trio.lowlevel.notify_closing(listener.socket)
    listener.socket.close()


# --- TCP ---


async def _listen_tcp(address: TcpAddress, backlog: int) -> list[Listener]:
    """A name may stand for several addresses (localhost does); all of them get the same port."""
    try:
        found = await trio.socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ConfigInvalid("host", f"cannot resolve {address.host!r}: {error.strerror}") from None
    listeners: list[Listener] = []
    port = address.port
    try:
        for family, _, _, _, name in found:
            bound = _bind_tcp(address, family, (name[0], port, *name[2:]), backlog, is_first=not listeners)
            if bound is not None:
                port = bound.getsockname()[1]
                listeners.append(Listener(bound, TcpAddress(address.host, port)))
    except ConfigInvalid:
        for listener in listeners:
            close_listener(listener)
        raise
    if not listeners:
        raise ConfigInvalid("host", f"no network of this machine has the address {address.host!r}")
    return listeners


def _bind_tcp(
    address: TcpAddress, family: int, name: tuple[str | int, ...], backlog: int, *, is_first: bool
) -> socket.socket | None:
    """None if this machine has no such address: a container without IPv6 still resolves localhost to ::1."""
    try:
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(name)
        bound.listen(backlog)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRNOTAVAIL:
            return None
        if error.errno == errno.EADDRINUSE and not is_first and address.port == 0:
            return None  # the port that the system chose for the first address is taken on this one; one is enough
        raise ConfigInvalid("host", f"cannot listen on {address}: {_advice(error)}") from None
    return bound


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program is listening there (a countermand server?); stop it, or choose another --host"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "not allowed; choose a port above 1023, or a directory that is yours"
    return error.strerror or str(error)


# --- Unix ---


async def _listen_unix(address: UnixAddress, backlog: int) -> Listener:
    """Bind with mode 0600 from the first moment. A file that a dead server left is replaced; a live one is not."""
    if not address.path.parent.is_dir():
        problem = f"the directory of the socket, {str(address.path.parent)!r}, does not exist; create it first"
        raise ConfigInvalid("host", problem)
    with _open_directory(address.path.parent) as directory:
        await _lock_directory(directory)
        await _remove_stale(address.path)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with suppress(OSError):
                # Linux gives the file the mode of the socket, so that it is never anything else. Elsewhere this fails,
                # and the chmod below is in time all the same: nobody can connect before listen().
                os.fchmod(bound.fileno(), SOCKET_MODE)
            bound.bind(str(address.path))
            if stat.S_IMODE(os.lstat(address.path).st_mode) != SOCKET_MODE:
                os.chmod(address.path, SOCKET_MODE)
            bound.listen(backlog)
            bound.setblocking(False)
        except OSError as error:
            bound.close()
            raise ConfigInvalid("host", f"cannot listen on {address}: {_advice(error)}") from None
    return Listener(bound, address, _identity(address.path))


@contextmanager
def _open_directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _lock_directory(descriptor: int) -> None:
    """Let servers that start at the same moment look for a stale file, remove it and bind one after the other: else the
    later one would take the earlier one's fresh socket for the stale file that it saw.

    Given back by closing the descriptor. Who cannot get it goes on without: in a shared directory anyone could hold it.
    """
    await trio.lowlevel.checkpoint()
    for _ in range(DIRECTORY_LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await trio.sleep(0.02)
        else:
            return
    log.warning("socket_directory_busy", problem="another process holds a lock on the directory of the socket")


async def _remove_stale(path: Path) -> None:
    """Make way for a new socket, unless somebody answers on the old one."""
    await trio.lowlevel.checkpoint()
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ConfigInvalid("host", f"{str(path)!r} exists and is not a socket; it was left alone")
    except FileNotFoundError:
        return
    problem = f"{str(path)!r} is in use by a live server; stop it, or choose another --host"
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            with trio.move_on_after(PROBE_S):
                await probe.connect(str(path))
        except ConnectionRefusedError:
            with suppress(FileNotFoundError):
                os.unlink(path)
            return
        except FileNotFoundError:
            return
        except PermissionError:
            problem = f"{str(path)!r} belongs to another user; choose another --host"
    raise ConfigInvalid("host", problem)


def _identity(path: Path) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino

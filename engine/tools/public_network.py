"""The network as tools may use it: public addresses, and those that were allowed by hand (R32).

A name is resolved once, its addresses are looked at, and one of these very addresses is connected to. So neither a
second answer of a name server nor a redirect leads anywhere that was not looked at.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import final

import httpcore2
import trio

from engine.errors import ToolProblem

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# Addresses of the new internet that hold one of the old: what they lead to counts.
NAT64 = ip_network("64:ff9b::/96")
SIX_TO_FOUR = ip_network("2002::/16")


def read_networks(names: Iterable[str]) -> tuple[Network, ...]:
    """Networks by name, as `10.1.0.0/16` or `127.0.0.1`. Raises ValueError."""
    return tuple(ip_network(name) for name in names)


def is_public(address: Address) -> bool:
    """Whether an address is one that anybody can reach."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if address in NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
        if address in SIX_TO_FOUR:
            return is_public(IPv4Address(int(address) >> 80 & 0xFFFFFFFF))
    return address.is_global and not address.is_multicast


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """The addresses of a host, as the system knows them. Raises OSError."""
    found = await trio.socket.getaddrinfo(host, port, type=trio.socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


@final
class PublicNetwork(httpcore2.AsyncNetworkBackend):
    """Connects where a tool may connect to."""

    def __init__(self, allowed: Sequence[Network] = (), resolve: Resolve = resolve_name) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._inner = httpcore2.TrioBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  (so it is called)
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """A connection to one of the host's addresses. Raises ToolProblem if one of them is not public, and
        httpcore2.ConnectError."""
        try:
            addresses = await self._resolve(host, port)
        except (OSError, UnicodeError) as error:  # UnicodeError: of a name that no name server could have
            raise httpcore2.ConnectError(f"the name {host!r} cannot be resolved: {error}") from None
        for address in addresses:
            self._check(host, address)
        problem: Exception = httpcore2.ConnectError(f"{host!r} has no address")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                problem = error
        raise problem

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Nothing on this machine is for tools."""
        await trio.lowlevel.checkpoint()
        raise ToolProblem("sockets of this machine cannot be read")

    async def sleep(self, seconds: float) -> None:
        """Between two tries."""
        await trio.sleep(seconds)

    def _check(self, host: str, name: str) -> None:
        address = ip_address(name.partition("%")[0])
        if not is_public(address) and not any(address in network for network in self._allowed):
            raise ToolProblem(f"{host} leads to {address}, which is not a public address; it is not read")

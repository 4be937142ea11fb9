"""One accepted socket, as a stream that cannot be held for ever by whoever is at its other end.

Every send has a deadline, and so has every idle time; and the connection can be cut off in one synchronous step, shield
or no shield: closing a socket wakes whoever waits for it.
"""

import math
import socket
import struct
from contextlib import suppress

import trio

CHUNK = 1 << 16  # bytes that a reader must take within the patience: its slowest permitted rate is this a patience
KEEP_ALIVE_S = 30.0  # how long a connection may be idle between requests, and may take over the head of a request
LINGER_S = 1.0  # for how long what a peer still sends is read and dropped, so that it gets to read its answer
UNWIND_S = 2.0  # for how long a handler may go on after its connection has ended, before it is canceled
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, 0 s


class ConnectionStream:
    """An accepted socket, as the stream that Hypercorn's TCPServer wants. It is open until `aclose` or `abort`."""

    def __init__(self, accepted: socket.socket, *, patience_s: float) -> None:
        accepted.setblocking(False)
        self._raw = accepted
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
        self._patience_s = patience_s
        self.scope = trio.CancelScope()  # around everything done for this connection
        self.moves = 0  # how often something went through, either way
        self.is_closed = False
        self.was_aborted = False
        self._is_ended = False
        self._idle_until = math.inf  # finite while no request is being answered
        self._receiving: trio.CancelScope | None = None
        if accepted.family != socket.AF_UNIX:
            # For what the kernel took and cannot deliver: a peer that vanished while no further send misses a deadline.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(patience_s * 1000))

    @property
    def socket(self) -> trio.socket.SocketType:
        """Hypercorn asks it for the addresses."""
        return self._stream.socket

    def try_send(self, data: bytes) -> bytes:
        """Send without waiting; what is left to send, in order, before anything else. There is no checkpoint in here.

        Most of what a server says fits into the socket, and the rest of a send (a lock, two scopes, a checkpoint) takes
        longer than the system call.
        """
        if self._is_ended or self.is_closed:
            return data
        try:
            sent = self._raw.send(data)
        except OSError:
            return data  # full or broken; which of them, `send_all` will find out
        self.moves += 1
        return data[sent:]

    async def send_all(self, data: bytes) -> None:
        """Send everything, or cut the connection off when the peer takes nothing for too long.

        Raises BrokenResourceError then, and ClosedResourceError if the connection is closed meanwhile.
        """
        if self._is_ended:
            # Hypercorn may end the connection in one task while another, for which it reads, has an error to answer.
            raise trio.ClosedResourceError("the end was sent already")
        start = 0
        while True:
            try:
                with trio.fail_after(self._patience_s):
                    await self._stream.send_all(memoryview(data)[start : start + CHUNK])
            except trio.TooSlowError:
                self.abort()
                raise trio.BrokenResourceError("the peer stopped reading") from None
            self.moves += 1
            start += CHUNK
            if start >= len(data):
                return

    async def receive_some(self, max_bytes: int) -> bytes:
        """Read what is there; empty at the end of what the peer sends. Raises ClosedResourceError once the connection
        is closed or ended, or idle for too long."""
        if self.is_closed or self._is_ended:
            raise trio.ClosedResourceError("the connection is closed")
        data = None
        with trio.CancelScope(deadline=self._idle_until) as self._receiving:
            data = await self._stream.receive_some(max_bytes)
        self._receiving = None
        if data is None:
            raise trio.ClosedResourceError("nothing is to be read any more")
        self.moves += 1
        return data

    def set_idle(self, is_idle: bool) -> None:
        """A request begins, or its answer was sent."""
        self._idle_until = trio.current_time() + KEEP_ALIVE_S if is_idle else math.inf
        if self._receiving is not None:
            self._receiving.deadline = self._idle_until

    def leave(self) -> None:
        """The server is leaving: if no request is being answered, the connection is ended."""
        if self._idle_until < math.inf:
            self.end()

    def end(self) -> None:
        """Nothing more is to be said, and nothing to be read. Whoever reads is woken, and closes the connection."""
        self._is_ended = True
        # Nothing done for this connection has a use any more, but Hypercorn may be waiting to hand the rest of a body
        # to an application that has already answered and gone.
        self.scope.deadline = min(self.scope.deadline, trio.current_time() + UNWIND_S)
        if self._receiving is not None:
            self._receiving.cancel()

    async def send_eof(self) -> None:
        """Tell the peer that nothing follows. Raises BusyResourceError while something is being sent."""
        self._is_ended = True
        await self._stream.send_eof()

    async def aclose(self) -> None:
        """Close the connection in a way that leaves the peer able to read what was sent. Idempotent."""
        if self.is_closed:
            await trio.lowlevel.checkpoint()
            return
        self.end()
        self.is_closed = True
        try:
            await self._linger()
        finally:
            self._stream.socket.close()

    def abort(self) -> None:
        """Cut the connection off now. Tasks that wait for it wake with an error, under a shield too. Idempotent."""
        self.end()
        self.is_closed = True
        if self._raw.fileno() == -1:
            return
        self.was_aborted = True
        with suppress(OSError):
            # Drop what the peer did not take, instead of leaving it to the kernel to keep on trying.
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._stream.socket.close()

    async def _linger(self) -> None:
        """Closing a socket with something unread in it resets the connection, and the reset can overtake the answer on
        its way to the peer: one who is told that its body is too large could not read it while still sending."""
        await trio.lowlevel.checkpoint()
        try:
            self._raw.recv(CHUNK)
            with trio.move_on_after(LINGER_S):
                while True:
                    await trio.lowlevel.wait_readable(self._raw)
                    if not self._raw.recv(CHUNK):
                        break
        except (OSError, trio.BusyResourceError, trio.ClosedResourceError):
            pass  # nothing is unread, or the peer has gone, or Hypercorn is reading (and so nothing is unread)

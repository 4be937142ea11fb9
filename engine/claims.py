"""Which clients keep a workspace alive, for how long, and which session each of them is looking at.

Plain and synchronous: no method has a checkpoint, so no lock is needed, and whoever owns the claims can decide what to
do (close the workspace, keep it) in the same step in which they changed. Moments are handed in: Trio's clock, seconds.

A record lives until a method here removes it. One whose time has run out still counts until `expire` is called: a
client that comes back in that gap keeps everything, and nobody is told of an end that is then taken back.
"""

import math

import msgspec

from engine.errors import ClientNotAttached
from engine.records.ids import ClientId


class ClaimStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of the claims on one workspace."""

    is_kept: bool
    clients: int  # records, those in their grace included
    attached: int  # clients with at least one stream
    streams: int
    current_sessions: int  # different sessions that attached clients look at


class _Record:
    """One client. It has streams, or a deadline, or both for as long as nobody looked; never neither."""

    __slots__ = ("current_session", "deadline", "is_released", "streams")

    def __init__(self) -> None:
        self.streams = 0
        self.deadline = math.inf  # finite only while there are no streams
        self.current_session = ""
        self.is_released = False


class ClientClaims:
    """The claims on one workspace: it is wanted while it is kept, or while at least one client has a record."""

    def __init__(self, *, create_hold_s: float, detach_grace_s: float) -> None:
        self._create_hold_s = create_hold_s
        self._detach_grace_s = detach_grace_s
        self._records: dict[ClientId, _Record] = {}
        # Streams that were open when their client was dropped. Their ends are still to come and must not be taken for
        # the end of a stream that the same client opened later.
        self._orphans: dict[ClientId, int] = {}
        self._anonymous_until = -math.inf
        self._is_kept = False

    @property
    def is_kept(self) -> bool:
        """Whether the workspace stays until it is deleted, whoever comes and goes."""
        return self._is_kept

    def is_claimed(self) -> bool:
        """Whether anything keeps the workspace alive."""
        return self._is_kept or bool(self._records) or self._anonymous_until > -math.inf

    def keep(self) -> None:
        """Keep the workspace until it is deleted: it was created without a client."""
        self._is_kept = True

    def hold(self, client_id: ClientId, now: float) -> None:
        """A client created the workspace, or created it again: it has the full hold to open a stream.

        This takes back an earlier release. A client that has a stream needs no hold.
        """
        record = self._records.setdefault(client_id, _Record())
        record.is_released = False
        if not record.streams:
            record.deadline = now + self._create_hold_s

    def hold_anonymous(self, now: float) -> None:
        """After a restart nobody knows which clients there were: for one hold, any of them may come back."""
        self._anonymous_until = now + self._create_hold_s

    def attach(self, client_id: ClientId, now: float) -> None:
        """A stream of the client opened. One from an unknown client makes a record."""
        record = self._records.setdefault(client_id, _Record())
        record.streams += 1
        record.deadline = math.inf

    def detach(self, client_id: ClientId, now: float) -> None:
        """A stream of the client ended. After its last one the client has the grace to come back, unless it said that
        it would not."""
        if self._forget_orphan(client_id):
            return
        record = self._records.get(client_id)
        if record is None or not record.streams:
            return
        record.streams -= 1
        if record.streams:
            return
        if record.is_released or self._detach_grace_s <= 0:
            del self._records[client_id]
        else:
            record.deadline = now + self._detach_grace_s

    def release(self, client_id: ClientId, now: float) -> None:
        """The client gives its claim up. Streams that are open still hold the workspace, and get no grace."""
        record = self._records.get(client_id)
        if record is None:
            return
        if record.streams:
            record.is_released = True
        else:
            del self._records[client_id]

    def drop(self, client_id: ClientId) -> None:
        """The client is retired: its record goes, streams or not, and the ends of those streams no longer count."""
        record = self._records.pop(client_id, None)
        if record is not None and record.streams:
            self._orphans[client_id] = self._orphans.get(client_id, 0) + record.streams

    def expire(self, now: float) -> None:
        """Forget whoever's time has run out."""
        for client_id in [each for each, record in self._records.items() if record.deadline <= now]:
            del self._records[client_id]
        if self._anonymous_until <= now:
            self._anonymous_until = -math.inf

    def next_deadline(self) -> float | None:
        """When `expire` will next have something to forget, or None."""
        deadlines = [record.deadline for record in self._records.values()]
        deadlines.append(self._anonymous_until)
        return min((each for each in deadlines if math.isfinite(each)), default=None)

    def set_current_session(self, client_id: ClientId, session_id: str) -> None:
        """Say which session the client is looking at; an empty id says none. It is forgotten with the record.

        Raises ClientNotAttached unless the client has an open stream.
        """
        record = self._records.get(client_id)
        if record is None or not record.streams:
            raise ClientNotAttached(client_id)
        record.current_session = session_id

    def attached_clients(self, session_id: str) -> int:
        """How many clients with an open stream are looking at the session."""
        if not session_id:
            return 0
        return sum(1 for each in self._records.values() if each.streams and each.current_session == session_id)

    def statistics(self) -> ClaimStatistics:
        """What there is now."""
        attached = [each for each in self._records.values() if each.streams]
        return ClaimStatistics(
            is_kept=self._is_kept,
            clients=len(self._records),
            attached=len(attached),
            streams=sum(each.streams for each in attached),
            current_sessions=len({each.current_session for each in attached if each.current_session}),
        )

    def _forget_orphan(self, client_id: ClientId) -> bool:
        """Count down one stream of a dropped client. Which of several streams ended cannot be told: taking an orphan
        first errs on the side of keeping what is in use."""
        left = self._orphans.get(client_id)
        if left is None:
            return False
        if left == 1:
            del self._orphans[client_id]
        else:
            self._orphans[client_id] = left - 1
        return True

"""How events travel from the log to their readers."""

from typing import Protocol

from engine.errors import CountermandError
from engine.records.event import Event
from engine.records.ids import RunId, WorkspaceId


class Lagged(CountermandError):
    """The reader fell behind and lost what was buffered for it; the log has what was durable of it (R29)."""

    def __init__(self) -> None:
        super().__init__("the subscription fell behind")


class Subscription(Protocol):
    """One reader's place in the stream of live events. Closed by leaving the context that opened it, or by the bus."""

    async def receive(self) -> list[Event]:
        """Wait for events and take all that are there, in the order they were published.

        Raises `Lagged` once after events were lost, and `trio.EndOfChannel` when the bus closed the workspace.
        """
        ...

    def clear(self) -> None:
        """Forget what is buffered, and that anything was lost."""
        ...


class Bus(Protocol):
    """Live events, a workspace at a time. Everything here is synchronous: publishing never waits (R29)."""

    def publish(self, event: Event) -> None:
        """Hand the event to every subscription of its workspace, in order."""
        ...

    def latest(self, workspace_id: WorkspaceId) -> int | None:
        """The number of the last durable event that was published, or None if there was none since the bus was opened.
        Every event after it will reach a subscription that is made in the same synchronous step."""
        ...

    def subscribe(self, workspace_id: WorkspaceId, run_id: RunId | None = None) -> Subscription:
        """Start reading now: every event published from here on is received, or its loss is told by `Lagged`."""
        ...

    def unsubscribe(self, subscription: Subscription) -> None:
        """Stop reading. Safe to call twice."""
        ...

    def close_workspace(self, workspace_id: WorkspaceId) -> None:
        """End every subscription of the workspace after what is already buffered."""
        ...

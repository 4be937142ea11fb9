"""One run, followed from outside: its words as they come, and its result."""

from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import trio

from engine.records.run import RunState
from web.client_events import ClientEvent, EventReader
from web.client_text import RunText, TextPiece
from web.wire.events import Reset, RunComplete
from web.wire.messages import Message
from web.wire.runs import Run


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. `text` is that of its last message; `error` says why it failed."""

    run_id: str
    session_id: str
    state: RunState
    message_id: str = ""
    text: str = ""
    error: str = ""
    steered_into: str = ""


class RunReader(AsyncIterator[TextPiece]):
    """The words of one run, each once, as they come. Iterating ends when the run has; then there is a `result`.

    Made by `CountermandClient.open_run`, and closed by leaving that.
    """

    def __init__(
        self,
        events: EventReader,
        run_id: str,
        read_end: Callable[[Run], Awaitable[RunComplete]],
        read_messages: Callable[[], Awaitable[list[Message]]],
    ) -> None:
        self._events = events
        self._run_id = run_id
        self._read_end = read_end
        self._read_messages = read_messages
        self._text = RunText()
        self._pieces: list[TextPiece] = []
        self._event: ClientEvent | None = None  # the one that is being taken: what it needs may have to be read
        self._result: RunResult | None = None
        self.on_event: Callable[[ClientEvent], Awaitable[None]] | None = None  # awaited with each, before the next

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self._result is not None

    @property
    def result(self) -> RunResult:
        """How the run ended. Raises RuntimeError before it has."""
        if self._result is None:
            raise RuntimeError(f"run {self._run_id!r} has not ended yet")
        return self._result

    async def __anext__(self) -> TextPiece:
        await trio.lowlevel.checkpoint()
        while not self._pieces:
            if self._result is not None:
                raise StopAsyncIteration
            await self.next_event()
        return self._pieces.pop(0)

    async def next_event(self) -> ClientEvent:
        """The next event, for whoever wants to see them all. Its words are kept for the iteration.

        Canceled, it has lost nothing.
        """
        await trio.lowlevel.checkpoint()
        if self._event is None:
            self._event = await anext(self._events)
        event = self._event
        if self.on_event is not None:
            await self.on_event(event)
        match event.payload:
            case Reset():
                # Some of its events are not in the log any more: what they said is in its messages.
                for message in await self._read_messages():
                    self._pieces += self._text.take(ClientEvent("message", "updated", message, None, b""))
            case RunComplete() as end if end.run_id == self._run_id:
                self._result = _result_of(end)
            case Run() as run if run.id == self._run_id and run.state.is_terminal and event.seq is None:
                # The events are not in the log any more: the server told how the run ended, and nothing else.
                end = await self._read_end(run)
                event = ClientEvent("run_complete", "updated", end, None, b"")
                self._result = _result_of(end)
        self._pieces += self._text.take(event)
        self._event = None
        return event


def _result_of(end: RunComplete) -> RunResult:
    return RunResult(
        run_id=end.run_id,
        session_id=end.session_id,
        state=end.state,
        message_id=end.message_id,
        text=end.text,
        error=end.error,
        steered_into=end.steered_into,
    )

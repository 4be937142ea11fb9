"""The words of a run, put together from what a stream says of them: each once, in order."""

import msgspec

from engine.records.ids import is_child_session
from engine.records.run import RunState
from web.client_events import ClientEvent
from web.wire.events import MessageDelta, RunComplete
from web.wire.messages import Message, TextPart


class TextPiece(msgspec.Struct, frozen=True):
    """Words to show after those that were shown. With `is_restart` the words of this message that were shown before do
    not count any more: the attempt that they belong to failed, and was made again."""

    message_id: str
    text: str
    is_restart: bool = False


class _Part:
    """One text part of a message: what it is, as far as is known, and what was shown of it."""

    __slots__ = ("current", "shown")

    def __init__(self) -> None:
        self.current = ""
        self.shown = ""


class RunText:
    """Takes the events of one run, read with `deltas`, and gives the words to show.

    Deltas, whole messages and snapshots may tell the same words, in this order or another; a whole message may be older
    than a delta that overtook it. So what a part is and what was shown of it are kept apart, and compared.
    """

    def __init__(self) -> None:
        self._messages: dict[str, dict[int, _Part]] = {}
        self._restarted: set[str] = set()  # messages whose next piece begins anew
        self._not_shown: set[str] = set()  # messages of sub-agents: they speak to the agent alone

    def take(self, event: ClientEvent) -> list[TextPiece]:
        """What the event adds to what is to be shown."""
        match event.payload:
            case MessageDelta(message_id) if message_id in self._not_shown:
                pass
            case MessageDelta(message_id, index, "text", offset, text):
                return self._take_delta(message_id, index, offset, text)
            case MessageDelta(message_id, index):
                self._take_back(message_id, index)
            case Message() as message if is_child_session(message.session_id):
                self._not_shown.add(message.id)
            case Message(role="assistant") as message if event.kind != "deleted":
                return self._take_message(message)
            case RunComplete(message_id=message_id) as end if message_id and end.text:
                return self._take_end(end)
        return []

    def _part(self, message_id: str, index: int) -> _Part:
        return self._messages.setdefault(message_id, {}).setdefault(index, _Part())

    def _take_delta(self, message_id: str, index: int, offset: int, text: str) -> list[TextPiece]:
        part = self._part(message_id, index)
        if offset > len(part.current):
            return []  # something was lost in between: the next snapshot has it all
        if part.current[offset : offset + len(text)] != text:
            part.current = part.current[:offset] + text
        return self._show(message_id, part)

    def _take_message(self, message: Message) -> list[TextPiece]:
        pieces: list[TextPiece] = []
        for index, each in enumerate(message.parts):
            if isinstance(each, TextPart):
                part = self._part(message.id, index)
                if not part.current.startswith(each.data.text):
                    part.current = each.data.text
                pieces += self._show(message.id, part)
            else:
                self._take_back(message.id, index)
        return pieces

    def _take_back(self, message_id: str, index: int) -> None:
        """This part is no text; if it was, another attempt has begun, and it begins with something else."""
        if self._messages.get(message_id, {}).pop(index, None):
            self._restarted.add(message_id)

    def _take_end(self, end: RunComplete) -> list[TextPiece]:
        """The terminal event has the last message's words, whatever was lost of them on the way."""
        parts = self._messages.get(end.message_id, {})
        shown = "".join(parts[index].shown for index in sorted(parts))
        if end.text == shown:
            return []
        is_cut_short = end.state in (RunState.INTERRUPTED, RunState.CANCELED)
        if is_cut_short and shown.startswith(end.text):
            return []  # a server that was killed had shown more than it had stored
        is_more = end.text.startswith(shown)
        text = end.text.removeprefix(shown) if is_more else end.text
        return [TextPiece(end.message_id, text, is_restart=not is_more)]

    def _show(self, message_id: str, part: _Part) -> list[TextPiece]:
        """What is to be shown so that what is shown becomes what is."""
        shown, current = part.shown, part.current
        if shown.startswith(current):
            return []  # nothing new; or taken back, or older than what is known: what comes next will tell
        part.shown = current
        is_restart = not current.startswith(shown) or message_id in self._restarted
        self._restarted.discard(message_id)
        return [TextPiece(message_id, current if is_restart else current[len(shown) :], is_restart)]

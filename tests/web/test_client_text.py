"""The words of a run, put together from deltas, whole messages and the end: each once, whatever comes when."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.records.run import RunState
from web.client_events import ClientEvent, Payload
from web.client_text import RunText, TextPiece
from web.wire.events import MessageDelta, RunComplete
from web.wire.messages import Message, ReasoningData, ReasoningPart, TextData, TextPart

M = "m1"


def event(payload: Payload, kind: str = "updated") -> ClientEvent:
    return ClientEvent("any", kind, payload, None, b"{}")


def delta(offset: int, text: str, *, part: int = 0, kind: str = "text", message_id: str = M) -> ClientEvent:
    return event(MessageDelta(message_id, part, kind, offset, text))


def whole(*texts: str, role: str = "assistant", message_id: str = M) -> ClientEvent:
    parts = tuple(TextPart(TextData(text)) for text in texts)
    return event(message(parts, role=role, message_id=message_id))


def message(parts: tuple[TextPart | ReasoningPart, ...], *, role: str = "assistant", message_id: str = M) -> Message:
    return Message(
        id=message_id, role=role, session_id="s", parts=parts, model="", provider="", created_at=0, updated_at=0
    )


def end(text: str, message_id: str = M, state: RunState = RunState.COMPLETED) -> ClientEvent:
    return event(RunComplete(session_id="s", run_id="r", message_id=message_id, state=state, text=text))


def shown(*events: ClientEvent) -> list[TextPiece]:
    text = RunText()
    return [piece for each in events for piece in text.take(each)]


def words(*events: ClientEvent) -> str:
    pieces = shown(*events)
    assert not any(piece.is_restart for piece in pieces)
    return "".join(piece.text for piece in pieces)


def test_deltas_are_shown_as_they_come() -> None:
    assert shown(delta(0, "Hel"), delta(3, "lo")) == [TextPiece(M, "Hel"), TextPiece(M, "lo")]


def test_a_repeated_delta_is_shown_once() -> None:
    assert words(delta(0, "Hel"), delta(0, "Hel"), delta(3, "lo"), delta(3, "lo")) == "Hello"


def test_a_snapshot_adds_what_is_missing_and_no_more() -> None:
    assert words(delta(0, "Hel"), whole("Hello wor"), delta(9, "ld")) == "Hello world"


def test_a_delta_after_a_gap_waits_for_the_snapshot() -> None:
    assert words(delta(0, "Hel"), delta(6, "world"), whole("Hello world"), delta(11, "!")) == "Hello world!"


def test_a_whole_message_older_than_what_was_shown_takes_nothing_back() -> None:
    assert words(delta(0, "Hello"), whole("He"), delta(5, " world"), end("Hello world")) == "Hello world"


def test_the_end_has_what_was_lost() -> None:
    assert words(end("Hello")) == "Hello"
    assert words(delta(0, "Hel"), end("Hello")) == "Hello"
    assert words(whole("Hello"), end("Hello")) == "Hello"


def test_an_end_without_a_message_says_nothing() -> None:
    assert shown(event(RunComplete(session_id="s", run_id="r", message_id="", state=RunState.CANCELED))) == []


def test_messages_of_others_and_thoughts_are_not_shown() -> None:
    thinking = message((ReasoningPart(ReasoningData("hm", "")),))
    assert shown(whole("a prompt", role="user"), delta(0, "hm", kind="reasoning"), event(thinking)) == []


def test_what_a_sub_agent_says_is_not_shown() -> None:
    inner = msgspec.structs.replace(message((TextPart(TextData("in")),), message_id="m2"), session_id="m1$$call")
    told = (event(inner), delta(2, "ner", message_id="m2"), delta(5, " voice", message_id="m2"))
    assert shown(delta(0, "I ask."), *told, delta(6, " Done.")) == [TextPiece(M, "I ask."), TextPiece(M, " Done.")]


def test_a_deleted_message_is_not_shown() -> None:
    assert shown(event(message((TextPart(TextData("gone")),)), kind="deleted")) == []


def test_the_messages_of_a_turn_are_shown_one_after_the_other() -> None:
    pieces = shown(delta(0, "first"), whole("first"), delta(0, "second", message_id="m2"), end("second", "m2"))
    assert pieces == [TextPiece(M, "first"), TextPiece("m2", "second")]


def test_words_of_a_failed_attempt_do_not_count_once_the_next_one_says_others() -> None:
    pieces = shown(delta(0, "Hello world"), whole(), delta(0, "Hello "), delta(6, "there"), end("Hello there"))
    assert pieces == [TextPiece(M, "Hello world"), TextPiece(M, "Hello there", is_restart=True)]


def test_words_that_the_next_attempt_repeats_are_shown_once() -> None:
    assert words(delta(0, "Hello"), whole(), delta(0, "Hello"), delta(5, " world"), end("Hello world")) == "Hello world"


def test_an_attempt_that_begins_with_thinking_starts_anew() -> None:
    thinking = message((ReasoningPart(ReasoningData("hm", "")), TextPart(TextData("Hi"))))
    pieces = shown(delta(0, "Hello"), whole(), delta(0, "hm", kind="reasoning"), event(thinking), end("Hi"))
    assert pieces == [TextPiece(M, "Hello"), TextPiece(M, "Hi", is_restart=True)]


@pytest.mark.parametrize("state", [RunState.INTERRUPTED, RunState.CANCELED])
def test_words_that_a_killed_server_had_shown_and_not_stored_are_not_followed_by_what_it_had(state: RunState) -> None:
    assert words(delta(0, "Hello the"), whole("Hello"), end("Hello", state=state)) == "Hello the"
    assert words(delta(0, "Hel"), end("Hello", state=state)) == "Hello"


def test_an_answer_that_is_whole_takes_back_what_was_more_than_it() -> None:
    assert shown(delta(0, "Hello the"), end("Hello"))[-1] == TextPiece(M, "Hello", is_restart=True)


def test_an_end_that_says_something_else_is_shown_as_it_is() -> None:
    pieces = shown(delta(0, "Hello"), end("Good bye"))
    assert pieces == [TextPiece(M, "Hello"), TextPiece(M, "Good bye", is_restart=True)]


@given(st.text(alphabet="ab \n", min_size=1, max_size=30), st.data())
def test_whatever_is_lost_repeated_or_late_each_word_is_shown_once(text: str, data: st.DataObject) -> None:
    """The events of a stream whose connection may break anywhere: deltas in order, some of them lost or said again, and
    whole messages of any age between them; the end comes last."""
    events: list[ClientEvent] = []
    at = 0
    while at < len(text):
        size = data.draw(st.integers(1, len(text) - at))
        match data.draw(st.sampled_from(["said", "lost", "repeated", "snapshot", "old"])):
            case "said":
                events.append(delta(at, text[at : at + size]))
            case "repeated":
                events += [delta(at, text[at : at + size])] * 2
            case "snapshot":
                events.append(whole(text[: at + size]))
            case "old":
                events += [delta(at, text[at : at + size]), whole(text[: data.draw(st.integers(0, at))])]
        at += size
    assert words(*events, end(text)) == text

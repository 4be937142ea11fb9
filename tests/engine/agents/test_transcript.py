"""The session as a model sees it: what is kept, what is left out, and what is mended."""

from typing import Any

from engine.agents.transcript import CANCELED_NOTE, transcript
from engine.models.protocol import ModelInfo
from engine.records.ids import MessageId, RunId, SessionId
from engine.records.message import Finish, FinishReason, Message, Part, Reasoning, Role, Text, ToolCall
from tests.doubles.engine import ScriptedAgent, open_watched

MODEL = ModelInfo(id="m", provider="p", name="M")
THOUGHT = Reasoning("hm", "signed", 1, 2)
CALL = ToolCall("c", "look", "{}", finished=True)


def said(*parts: Part, model: str = "m", provider: str = "p") -> Message:
    """An assistant's message."""
    return Message(
        id=MessageId("1"), session_id=SessionId("s"), role=Role.ASSISTANT, parts=parts, turn=1, run_id=RunId("r"),
        model=model, provider=provider, created_at_us=0, updated_at_us=0,
    )  # fmt: skip


def test_a_model_gets_its_own_thoughts_back_where_they_were() -> None:
    parts = (THOUGHT, Text("a"), Reasoning("", "more"), CALL)
    [seen, result] = transcript([said(*parts, Finish(FinishReason.TOOL_USE))], MODEL)
    assert seen.parts == parts
    assert result.tool_results[0].tool_call_id == "c"


def test_a_model_never_gets_the_thoughts_of_another() -> None:
    for model, provider in (("other", "p"), ("m", "other"), ("", "")):
        [seen] = transcript([said(THOUGHT, Text("a"), model=model, provider=provider)], MODEL)
        assert seen.parts == (Text("a"),)


def test_thoughts_alone_are_no_message() -> None:
    assert transcript([said(THOUGHT)], MODEL) == ()
    assert transcript([said()], MODEL) == ()


def test_r10_a_canceled_step_says_so_before_its_calls() -> None:
    [seen, _] = transcript([said(THOUGHT, Text("a"), CALL, Finish(FinishReason.CANCELED))], MODEL)
    assert seen.parts == (THOUGHT, Text("a"), Text(f"\n\n{CANCELED_NOTE}"), CALL)
    [seen] = transcript([said(Text("a"), Finish(FinishReason.CANCELED))], MODEL)
    assert seen.text == f"a\n\n{CANCELED_NOTE}"
    [seen] = transcript([said(Finish(FinishReason.CANCELED))], MODEL)
    assert seen.text == CANCELED_NOTE


async def test_a_signature_is_stored_where_it_came_even_without_a_thought(
    autojump_clock: object, tmp_path: object
) -> None:
    async def respond(turn: Any) -> None:
        turn.think("hm")
        turn.think("", "first")
        turn.think("", "second")
        turn.say("words")
        turn.think("", "last")
        turn.think("again")

    async with open_watched(path=str(tmp_path), agent=ScriptedAgent(respond)) as watched:
        await watched.ended(await watched.send())
        parts = (await watched.messages())[-1].parts
    told = [(p.thinking, p.signature) if isinstance(p, Reasoning) else p for p in parts if not isinstance(p, Finish)]
    assert told == [("hm", "first"), ("", "second"), Text("words"), ("", "last"), ("again", "")]
    assert all(part.finished_at_us for part in parts if isinstance(part, Reasoning))

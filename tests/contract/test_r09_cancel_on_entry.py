"""R09: a run that was canceled before it began calls nothing, leaves a canceled turn, and does not come back. The race
at its heart is in `test_reference_race.py`."""

import pytest

from engine.records.message import FinishReason, Role
from engine.records.run import RunState
from tests.doubles.coder import RecordingModel, coder, script
from tests.doubles.engine import open_watched
from tests.doubles.gate import Gate
from tests.doubles.stages import AHEAD, HELD, UNBEGUN, At, Staged, open_staged

CANCELED_TURN = [("user", "held", "stop"), ("assistant", "", "canceled")]


@pytest.mark.parametrize("by", ["session", "run"])
@pytest.mark.parametrize("at", UNBEGUN)
async def test_r09_canceled_turn_is_stored_and_nothing_called_for_a_run_that_is(
    at: At, by: str, autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(at, tmp_path) as staged:
        assert HELD in await cancel(staged, by)
        ended = await staged.ended()
        assert ended.state is RunState.CANCELED
        assert ended.started_at_us is None
        assert await staged.turn() == CANCELED_TURN
        [terminal] = await staged.watched.terminal_events(ended)
        last = (await staged.watched.backend.store.run_messages(staged.workspace.id, HELD))[-1]
        assert (terminal.state, terminal.message_id, terminal.text) == (RunState.CANCELED, last.id, "")
        staged.release()
        if at is not At.COMMIT and at is not At.ENTRY:
            await staged.ended(AHEAD)
        assert HELD not in staged.began
        assert staged.tool.begun == 0


@pytest.mark.parametrize("by", ["session", "run"])
async def test_r09_run_canceled_while_it_starts_calls_no_agent(
    by: str, autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.START, tmp_path) as staged:
        assert await cancel(staged, by) == (HELD,)
        assert (await staged.ended()).state is RunState.CANCELED
        assert await staged.turn() == CANCELED_TURN
        assert staged.began == []


async def test_r09_run_canceled_behind_an_active_one_leaves_that_one_alone(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.QUEUE, tmp_path) as staged:
        assert (await staged.workspace.cancel_run(HELD)).canceled == (HELD,)
        assert (await staged.ended()).state is RunState.CANCELED
        assert await staged.state(AHEAD) is RunState.ACTIVE
        staged.ahead.open()
        assert (await staged.ended(AHEAD)).state is RunState.COMPLETED
        said = [(m.role, m.text, m.finish and m.finish.reason) for m in await staged.watched.messages()]
        assert said == [
            (Role.USER, "ahead", FinishReason.STOP),
            (Role.ASSISTANT, "You said: ahead. ", FinishReason.END_TURN),
            (Role.USER, "held", FinishReason.STOP),
            (Role.ASSISTANT, "", FinishReason.CANCELED),
        ]


@pytest.mark.parametrize("earlier", [0, 1], ids=["as the first prompt after opening", "later on"])
async def test_r09_later_run_does_not_show_the_prompt_to_the_model(
    earlier: int, autojump_clock: object, tmp_path: object
) -> None:
    model, gate = RecordingModel(), Gate()

    async def before_entry(run: object) -> None:
        if "held" in repr(run):
            await gate.pass_through()

    async with open_watched(path=str(tmp_path), before_entry=before_entry, **coder(model)) as watched:
        for _ in range(earlier):
            await watched.ended(await watched.send(script([{"text": "Well begun."}], say="the first prompt")))
        held = await watched.send("a canceled prompt", run_id=HELD)
        await gate.reached()
        assert await watched.workspace.cancel_session(watched.session_id) == (HELD,)
        later = await watched.send(script([{"text": "Done."}], say="the last prompt"))
        gate.open()
        assert (await watched.ended(held)).state is RunState.CANCELED
        assert (await watched.ended(later)).state is RunState.COMPLETED
        assert len(model.requests) == earlier + 1
        assert "a canceled prompt" not in model.last_seen
        assert "the last prompt" in model.last_seen
        assert ("Well begun." in model.last_seen) is bool(earlier)


async def test_r09_run_interrupted_before_it_began_leaves_a_canceled_turn(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.QUEUE, tmp_path) as staged:
        await staged.watched.send("now", run_id="now", if_busy="interrupt")
        assert (await staged.ended()).state is RunState.CANCELED
        assert await staged.turn() == CANCELED_TURN
        assert (await staged.ended("now")).state is RunState.COMPLETED
        assert staged.began == [AHEAD, "now"]


async def test_r09_prompt_that_wanted_to_steer_and_was_canceled_before_it_is_not_taken_in(
    autojump_clock: object, tmp_path: object
) -> None:
    async with open_staged(At.QUEUE, tmp_path) as staged:
        await staged.watched.send("steer", run_id="steer", if_busy="steer")
        await staged.workspace.cancel_run("steer")
        staged.ahead.open()
        assert (await staged.ended(AHEAD)).state is RunState.COMPLETED
        assert (await staged.ended("steer")).state is RunState.CANCELED
        assert await staged.turn(AHEAD) == [("user", "ahead", "stop"), ("assistant", "You said: ahead. ", "end_turn")]


async def cancel(staged: Staged, by: str) -> tuple[str, ...]:
    """Cancel the held run, in one of the two ways; the runs that the answer names."""
    if by == "session":
        return await staged.under_hold(lambda: staged.workspace.cancel_session(staged.session_id))
    return (await staged.under_hold(lambda: staged.workspace.cancel_run(HELD))).canceled

"""A cancel against the natural end of a run, and against the taking over of the next one."""

from functools import partial
from typing import Any

import pytest
import trio

from engine.records.message import FinishReason
from engine.records.run import RunState
from tests.doubles.racing import orders, race, rounds
from tests.doubles.stages import AHEAD, HELD, At, open_staged


@pytest.mark.parametrize("by", ["session", "run"])
@orders
async def test_cancel_and_natural_finish(order: str, by: str, autojump_clock: object, tmp_path: object) -> None:
    for number in rounds(order):
        async with open_staged(At.AGENT, tmp_path) as staged:
            named: list[str] = []

            async def cancel(staged: Any = staged, named: list[str] = named) -> None:
                if by == "session":
                    named.extend(await staged.workspace.cancel_session(staged.session_id))
                else:
                    named.extend((await staged.workspace.cancel_run(HELD)).canceled)

            async def finish(staged: Any = staged) -> None:
                staged.held.open()
                if order == "second":
                    await staged.ended()

            await race(order, number, cancel, finish)
            ended = await staged.ended()
            assert ended.state is (RunState.CANCELED if named else RunState.COMPLETED)
            last = await staged.turn()
            assert last[-1][2] == (FinishReason.CANCELED if named else FinishReason.END_TURN)
            if order != "together":
                assert bool(named) is (order == "first")


@pytest.mark.parametrize("by", ["session", "run"])
@orders
async def test_cancel_and_taking_over_of_the_next_run(
    order: str, by: str, autojump_clock: object, tmp_path: object
) -> None:
    for number in rounds(order):
        async with open_staged(At.QUEUE, tmp_path) as staged:
            named: list[str] = []

            async def cancel(staged: Any = staged, named: list[str] = named) -> None:
                if by == "session":
                    named.extend(await staged.workspace.cancel_session(staged.session_id))
                else:
                    named.extend((await staged.workspace.cancel_run(HELD)).canceled)

            async def finish(staged: Any = staged) -> None:
                staged.ahead.open()
                if order == "second":
                    await staged.ended()

            await race(order, number, cancel, finish)
            for run_id in (AHEAD, HELD):
                ended = await staged.ended(run_id)
                assert ended.state is (RunState.CANCELED if run_id in named else RunState.COMPLETED)
                if run_id in named and ended.started_at_us is None:
                    assert run_id not in staged.began
            if by == "run":
                assert AHEAD not in named


@orders
async def test_cancel_of_the_active_run_and_of_the_one_behind_it(
    order: str, autojump_clock: object, tmp_path: object
) -> None:
    for number in rounds(order):
        async with open_staged(At.QUEUE, tmp_path) as staged:
            await staged.watched.send("last", run_id="last")
            await race(
                order,
                number,
                partial(staged.workspace.cancel_run, AHEAD),
                partial(staged.workspace.cancel_run, HELD),
            )
            for run_id in (AHEAD, HELD):
                ended = await staged.ended(run_id)
                assert ended.state in {RunState.CANCELED, RunState.COMPLETED}
                assert (ended.state is RunState.CANCELED) is (ended.cancel_requested_at_us is not None)
            assert (await staged.ended("last")).state is RunState.COMPLETED
            assert (await staged.ended(AHEAD)).state is RunState.CANCELED


@orders
async def test_clearing_the_queue_and_taking_over_of_the_next_run(
    order: str, autojump_clock: object, tmp_path: object
) -> None:
    for number in rounds(order):
        async with open_staged(At.QUEUE, tmp_path) as staged:
            await staged.watched.send("last", run_id="last")
            cleared: list[str] = []

            async def clear(staged: Any = staged, out: list[str] = cleared) -> None:
                out.extend(await staged.workspace.clear_queue(staged.session_id))

            async def finish(staged: Any = staged) -> None:
                staged.ahead.open()

            await race(order, number, clear, finish)
            assert (await staged.ended(AHEAD)).state is RunState.COMPLETED
            for run_id in (HELD, "last"):
                ended = await staged.ended(run_id)
                assert ended.state is (RunState.CANCELED if run_id in cleared else RunState.COMPLETED)


@orders
async def test_cancel_and_deadline(order: str, autojump_clock: object, tmp_path: object) -> None:
    for number in rounds(order):
        async with open_staged(At.AGENT, tmp_path, default_timeout_s=5.0) as staged:
            start = (await staged.workspace.run(HELD)).started_at_us
            assert start is not None
            named: list[str] = []

            async def cancel(staged: Any = staged, named: list[str] = named) -> None:
                await trio.sleep(4.9 if order == "first" else 5.1 if order == "second" else 5.0)
                named.extend(await staged.workspace.cancel_session(staged.session_id))

            await race("together", number, cancel, trio.lowlevel.checkpoint)
            ended = await staged.ended()
            assert ended.state is (RunState.CANCELED if named else RunState.FAILED)
            if order != "together":
                assert bool(named) is (order == "first")

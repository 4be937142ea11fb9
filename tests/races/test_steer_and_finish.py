"""Prompts that steer against the end, the cancel and the next step of the turn that they want to join."""

from functools import partial
from typing import Any

from engine.records.run import RunState
from tests.doubles.engine import ScriptedAgent, open_watched
from tests.doubles.gate import Gate
from tests.doubles.racing import orders, race, rounds
from tests.doubles.stages import AHEAD, HELD, At, open_staged


@orders
async def test_steer_and_next_step(order: str, autojump_clock: object, tmp_path: object) -> None:
    gate = Gate()

    async def respond(turn: Any) -> None:
        if turn.prompt.text != "host":
            return
        await gate.pass_through()
        await turn.steered()
        await turn.next_step()

    async with open_watched(path=str(tmp_path), agent=ScriptedAgent(respond)) as watched:
        for number in rounds(order):
            gate = Gate()
            host = await watched.send("host")
            await gate.reached()

            async def go_on(gate: Gate = gate, host: Any = host) -> None:
                gate.open()
                if order == "second":
                    await watched.ended(host)

            steered: list[Any] = []

            async def steer(out: list[Any] = steered) -> None:
                out.append(await watched.send("steer", if_busy="steer"))

            await race(order, number, steer, go_on)
            assert (await watched.ended(host)).state is RunState.COMPLETED
            ended = await watched.ended(steered[0])
            assert ended.state is RunState.COMPLETED
            was_alone = steered[0].id in [turn.run_id for turn in watched.agent.turns]
            assert was_alone is (ended.steered_into is None)
            if order == "second":
                assert was_alone


@orders
async def test_steered_run_and_its_host_are_canceled_each_alone(
    order: str, autojump_clock: object, tmp_path: object
) -> None:
    for number in rounds(order):
        async with open_staged(At.STEERED, tmp_path) as staged:
            await race(
                order,
                number,
                partial(staged.workspace.cancel_run, AHEAD),
                partial(staged.workspace.cancel_run, HELD),
            )
            assert (await staged.ended(AHEAD)).state is RunState.CANCELED
            ended = await staged.ended()
            canceled = ended.cancel_requested_at_us is not None
            assert ended.state is (RunState.CANCELED if canceled else RunState.COMPLETED)


@orders
async def test_steered_run_is_canceled_and_its_host_finishes(
    order: str, autojump_clock: object, tmp_path: object
) -> None:
    for number in rounds(order):
        async with open_staged(At.STEERED, tmp_path) as staged:
            named: list[str] = []

            async def cancel(staged: Any = staged, named: list[str] = named) -> None:
                named.extend((await staged.workspace.cancel_run(HELD)).canceled)

            async def finish(staged: Any = staged) -> None:
                staged.ahead.open()
                if order == "second":
                    await staged.ended(AHEAD)

            await race(order, number, cancel, finish)
            assert (await staged.ended(AHEAD)).state is RunState.COMPLETED
            ended = await staged.ended()
            assert ended.state is (RunState.CANCELED if named else RunState.COMPLETED)
            assert ended.steered_into == AHEAD


@orders
async def test_interrupt_and_steer(order: str, autojump_clock: object, tmp_path: object) -> None:
    for number in rounds(order):
        async with open_staged(At.STEERED, tmp_path) as staged:
            await race(
                order,
                number,
                partial(staged.watched.send, "now", run_id="now", if_busy="interrupt"),
                partial(staged.watched.send, "too", run_id="too", if_busy="steer"),
            )
            for run_id in (AHEAD, HELD, "now", "too"):
                ended = await staged.ended(run_id)
                covered = ended.cancel_requested_at_us is not None
                assert ended.state is (RunState.CANCELED if covered else RunState.COMPLETED)
            assert (await staged.ended("now")).state is RunState.COMPLETED
            assert (await staged.ended(HELD)).state is RunState.CANCELED


@orders
async def test_two_interrupts(order: str, autojump_clock: object, tmp_path: object) -> None:
    for number in rounds(order):
        async with open_staged(At.AGENT, tmp_path) as staged:
            await race(
                order,
                number,
                partial(staged.watched.send, "1", run_id="one", if_busy="interrupt"),
                partial(staged.watched.send, "2", run_id="two", if_busy="interrupt"),
            )
            states = {name: (await staged.ended(name)).state for name in (HELD, "one", "two")}
            assert states[HELD] is RunState.CANCELED
            last = (await staged.workspace.runs(limit=1))[0]
            assert states[last.id] is RunState.COMPLETED

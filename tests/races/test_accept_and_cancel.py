"""Accepting a prompt against cancels, before its run has entered and right after."""

from functools import partial
from typing import Any

import trio
import trio.testing

from engine.records.run import RunState
from tests.doubles.engine import Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.racing import orders, race, rounds
from tests.doubles.stages import AHEAD, HELD, At, open_staged


async def fresh(watched: Watched, number: int) -> tuple[str, str]:
    """A session of its own for this round, and the id of the run in it."""
    return (await watched.workspace.sessions.create("s")).id, f"run-{number}"


@orders
async def test_accept_and_session_cancel(order: str, watched: Watched, autojump_clock: object) -> None:
    for number in rounds(order):
        session_id, run_id = await fresh(watched, number)
        named: list[str] = []

        async def cancel(session_id: str = session_id, named: list[str] = named) -> None:
            named.extend(await watched.workspace.cancel_session(session_id))

        await race(
            order,
            number,
            partial(watched.send, session_id=session_id, run_id=run_id),
            cancel,
        )
        ended = await watched.ended(await watched.workspace.run(run_id))
        assert ended.state is (RunState.CANCELED if named else RunState.COMPLETED)
        if order == "second":
            assert not named


@orders
async def test_two_accepts_and_session_cancel(order: str, watched: Watched, autojump_clock: object) -> None:
    for number in rounds(order):
        session_id, run_id = await fresh(watched, number)
        named: list[str] = []

        async def cancel(session_id: str = session_id, named: list[str] = named) -> None:
            named.extend(await watched.workspace.cancel_session(session_id))

        async def send(session_id: str = session_id, run_id: str = run_id) -> None:
            async with trio.open_nursery() as nursery:
                for suffix in "ab":
                    nursery.start_soon(partial(watched.send, session_id=session_id, run_id=f"{run_id}{suffix}"))

        await race(order, number, send, cancel)
        for suffix in "ab":
            ended = await watched.ended(await watched.workspace.run(f"{run_id}{suffix}"))
            assert ended.state is (RunState.CANCELED if f"{run_id}{suffix}" in named else RunState.COMPLETED)


@orders
async def test_entry_and_cancel(order: str, autojump_clock: object, tmp_path: object) -> None:
    for number in rounds(order):
        async with open_staged(At.ENTRY, tmp_path) as staged:

            async def enter(staged: Any = staged) -> None:
                staged.held.open()

            named: list[str] = []

            async def cancel(staged: Any = staged, named: list[str] = named) -> None:
                named.extend(await staged.workspace.cancel_session(staged.session_id))

            await race(order, number, enter, cancel)
            assert (await staged.ended()).state is (RunState.CANCELED if named else RunState.COMPLETED)
            if order == "second":
                assert named == [HELD]
                assert staged.began == []


@orders
async def test_first_message_and_cancel(order: str, autojump_clock: object, tmp_path: object) -> None:
    for number in rounds(order):
        async with open_staged(At.START, tmp_path) as staged:

            async def begin(staged: Any = staged) -> None:
                staged.held.open()
                if order == "first":
                    await trio.testing.wait_all_tasks_blocked()

            named: list[str] = []

            async def cancel(staged: Any = staged, named: list[str] = named) -> None:
                named.extend(await staged.workspace.cancel_session(staged.session_id))

            if order == "second":
                staged.nursery.start_soon(cancel)
                await trio.testing.wait_all_tasks_blocked()
                await begin()
            else:
                await race(order, number, begin, cancel)
            state = (await staged.ended()).state
            assert state is (RunState.CANCELED if named else RunState.COMPLETED)


@orders
async def test_session_cancel_and_run_cancel(order: str, autojump_clock: object, tmp_path: object) -> None:
    for number in rounds(order):
        async with open_staged(At.QUEUE, tmp_path) as staged:
            answers: list[tuple[str, ...]] = []

            async def session(staged: Any = staged, out: Any = answers) -> None:
                out.append(await staged.workspace.cancel_session(staged.session_id, "the session"))

            async def run(staged: Any = staged, out: Any = answers) -> None:
                out.append((await staged.workspace.cancel_run(HELD, "the run")).canceled)

            await race(order, number, session, run)
            ended = [await staged.ended(run_id) for run_id in (AHEAD, HELD)]
            assert [run.state for run in ended] == [RunState.CANCELED, RunState.CANCELED]
            assert any(HELD in named for named in answers)
            assert any(AHEAD in named for named in answers)
            if order != "together":
                assert ended[1].cancel_reason == ("the session" if order == "first" else "the run")


@orders
async def test_cancel_all_while_others_are_queueing(order: str, autojump_clock: object, tmp_path: object) -> None:
    gate = Gate()

    async def respond(turn: Any) -> None:
        await gate.pass_through()

    async with open_watched(path=str(tmp_path)) as watched:
        watched.agent.respond_with = respond
        for number in rounds(order):
            gate = Gate()
            session_id, run_id = await fresh(watched, number)
            names = [f"{run_id}-{place}" for place in range(6)]
            await watched.send(session_id=session_id, run_id=names[0])
            named: list[str] = []

            async def queue(session_id: str = session_id, names: list[str] = names) -> None:
                async with trio.open_nursery() as nursery:
                    for name in names[1:]:
                        nursery.start_soon(partial(watched.send, session_id=session_id, run_id=name))

            async def cancel(session_id: str = session_id, named: list[str] = named) -> None:
                named.extend(await watched.workspace.cancel_session(session_id))

            await race(order, number, queue, cancel)
            gate.open()
            for name in names:
                ended = await watched.ended(await watched.workspace.run(name))
                assert ended.state is (RunState.CANCELED if name in named else RunState.COMPLETED)
            assert names[0] in named
            if order == "first":
                assert set(named) == set(names)

"""Accepting a prompt, and a run at each place of its way, against the closing of the workspace and the server."""

from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing

from engine.errors import CountermandError, ServerStopping, WorkspaceClosing
from engine.records.event import RunCompleted
from engine.records.ids import RunId
from engine.records.run import RunState
from tests.doubles.engine import Watched, open_watched
from tests.doubles.racing import orders, race, rounds
from tests.doubles.stages import CANCELABLE, HELD, HELD_BY_TEST, At, open_staged

ends = pytest.mark.parametrize("ends", ["the workspace closes", "the server stops"])


async def end(watched: Watched, how: str) -> None:
    """End the workspace. One that ends with its server is not said to be closed: what waits in it goes on."""
    if how == "the workspace closes":
        with suppress(ServerStopping):
            await watched.backend.delete_workspace(watched.workspace.id)
    else:
        watched.backend.begin_shutdown(0)
        await watched.backend.wait_stopped()


async def check_told_truly(watched: Watched, run_id: RunId, answer: object, how: str) -> None:
    """What the caller was told is what is stored; and what was closed has ended, with one event."""
    store, workspace_id = watched.backend.store, watched.workspace.id
    stored = await store.run(workspace_id, run_id)
    assert (stored is None) is isinstance(answer, CountermandError)
    events = [event for event in await store.events_after(workspace_id, 0, limit=10_000) if event.run_id == run_id]
    if stored is None:
        assert events == []
        return
    terminal = sum(isinstance(event.body, RunCompleted) for event in events)
    assert terminal == stored.run.state.is_terminal
    if how == "the workspace closes":
        assert stored.run.state.is_terminal


@ends
@orders
async def test_accept_and_close(ends: str, order: str, autojump_clock: object, tmp_path: object) -> None:
    for number in rounds(order):
        async with open_watched(path=str(tmp_path), check=False) as watched:
            answers: list[Any] = []

            async def send(watched: Watched = watched, answers: list[Any] = answers) -> None:
                try:
                    answers.append(await watched.send("hi", run_id="run"))
                except (WorkspaceClosing, ServerStopping) as error:
                    answers.append(error)

            await race(order, number, send, partial(end, watched, ends))
            await check_told_truly(watched, RunId("run"), answers[0], ends)
            if order == "second":
                assert isinstance(answers[0], CountermandError)


@ends
@pytest.mark.parametrize("at", [At.COMMIT, At.START, At.ENDING])
@orders
async def test_commit_in_flight_and_close(
    ends: str, at: At, order: str, autojump_clock: object, tmp_path: object
) -> None:
    for number in rounds(order):
        async with open_staged(at, tmp_path, check=False) as staged:

            async def commit(staged: Any = staged) -> None:
                staged.held.open()
                if order == "first":
                    await trio.testing.wait_all_tasks_blocked()

            if order == "second":
                staged.nursery.start_soon(end, staged.watched, ends)
                await trio.testing.wait_all_tasks_blocked()
                await commit()
            else:
                await race(order, number, commit, partial(end, staged.watched, ends))
            await trio.testing.wait_all_tasks_blocked()
            await check_told_truly(staged.watched, HELD, staged.answers[0], ends)


@ends
@pytest.mark.parametrize("at", CANCELABLE)
async def test_cancel_and_close(ends: str, at: At, autojump_clock: object, tmp_path: object) -> None:
    for number in range(6):
        async with open_staged(at, tmp_path, check=False) as staged:
            named: list[str] = []

            async def cancel(staged: Any = staged, named: list[str] = named) -> None:
                with suppress(WorkspaceClosing):
                    named.extend(await staged.workspace.cancel_session(staged.session_id))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(race, "together", number, cancel, partial(end, staged.watched, ends))
                await trio.testing.wait_all_tasks_blocked()
                if at in HELD_BY_TEST:
                    staged.held.open()
            stored = await staged.watched.backend.store.run(staged.workspace.id, HELD)
            assert stored is not None
            if HELD in named:
                assert stored.run.cancel_requested_at_us is not None
                assert stored.run.state is RunState.CANCELED or not stored.run.state.is_terminal
            if ends == "the workspace closes":
                assert stored.run.state is RunState.CANCELED


@orders
async def test_close_and_close(order: str, autojump_clock: object, tmp_path: object) -> None:
    for number in rounds(order):
        async with open_staged(At.QUEUE, tmp_path, check=False) as staged:
            await race(
                order,
                number,
                partial(end, staged.watched, "the workspace closes"),
                partial(end, staged.watched, "the server stops"),
            )
            stored = await staged.watched.backend.store.run(staged.workspace.id, HELD)
            assert stored is not None
            # Whoever comes first decides: closing cancels what waits, stopping keeps it.
            if order == "first":
                assert stored.run.state is RunState.CANCELED
            elif order == "second":
                assert stored.run.state is RunState.QUEUED
            assert staged.watched.backend.statistics().slots_used == 0


@orders
async def test_deleting_a_session_and_accepting_into_it(order: str, watched: Watched, autojump_clock: object) -> None:
    for number in rounds(order):
        session_id = (await watched.workspace.sessions.create("s")).id
        answers: list[Any] = []

        async def send(session_id: str = session_id, answers: list[Any] = answers) -> None:
            try:
                answers.append(await watched.send("hi", session_id=session_id))
            except CountermandError as error:
                answers.append(error)

        async def delete(session_id: str = session_id) -> None:
            await watched.workspace.delete_session(session_id)

        await race(order, number, send, delete)
        assert [one.id for one in await watched.workspace.sessions.all()].count(session_id) == 0
        assert watched.workspace.lanes.of_session(session_id) == ()
        if order == "second":
            assert isinstance(answers[0], CountermandError)

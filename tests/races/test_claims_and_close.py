"""Clients that come and go against the grace periods and the closing of their workspace."""

from functools import partial
from typing import Any

import pytest
import trio

from engine.backend import Backend, NewWorkspace, open_backend
from engine.errors import ClientRetired, NotFound
from engine.records.ids import ClientId
from engine.settings import EngineSettings
from tests.doubles.engine import ScriptedAgent
from tests.doubles.racing import orders, race, rounds

ANN, BOB = ClientId("ann"), ClientId("bob")
SETTINGS = EngineSettings(data_dir=None, create_hold_s=30.0, detach_grace_s=10.0)


def engine() -> Any:
    """An engine whose agent repeats what it hears."""
    return open_backend(SETTINGS, environ={}, agent=ScriptedAgent())


def is_open(backend: Backend, workspace_id: str) -> bool:
    """Whether the workspace can be found."""
    try:
        backend.workspace(workspace_id)
    except NotFound:
        return False
    return True


@pytest.mark.parametrize("late", [-0.001, 0.0, 0.001])
async def test_detach_and_attach_again_at_the_grace_limit(
    late: float, autojump_clock: object, tmp_path: object
) -> None:
    for _ in rounds("together"):
        async with engine() as backend:
            workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path), client_id=ANN))
            with workspace.attach(ANN):
                await trio.sleep(100)
            await trio.sleep(SETTINGS.detach_grace_s + late)
            with workspace.attach(ANN):
                await trio.sleep(100)
                was_open = is_open(backend, workspace.id)
            if late != 0:
                assert was_open is (late < 0)
            await trio.sleep(SETTINGS.detach_grace_s + 1)
            assert not is_open(backend, workspace.id)
            assert backend.is_idle()


@orders
async def test_create_and_last_release(order: str, autojump_clock: object, tmp_path: object) -> None:
    for number in rounds(order):
        async with engine() as backend:
            first = await backend.create_workspace(NewWorkspace(path=str(tmp_path), client_id=ANN))
            opened: list[Any] = []

            async def create(backend: Backend = backend, opened: list[Any] = opened) -> None:
                opened.append(await backend.create_workspace(NewWorkspace(path=str(tmp_path), client_id=BOB)))

            await race(order, number, create, partial(backend.release, first.id, ANN))
            # Whatever came first: the workspace that Bob was given is open, and is the one of this directory.
            await trio.sleep(1)
            assert opened[0].id == first.id
            assert backend.workspace(first.id) is opened[0]
            session = await opened[0].sessions.create("works")
            assert (await opened[0].sessions.get(session.id)).title == "works"
            if order == "first":
                assert opened[0] is first


@orders
async def test_create_and_retiring_of_its_client(order: str, autojump_clock: object, tmp_path: object) -> None:
    for number in rounds(order):
        async with engine() as backend:
            answers: list[Any] = []

            async def create(backend: Backend = backend, answers: list[Any] = answers) -> None:
                try:
                    answers.append(await backend.create_workspace(NewWorkspace(path=str(tmp_path), client_id=ANN)))
                except ClientRetired as error:
                    answers.append(error)

            await race(order, number, create, partial(backend.retire_client, ANN))
            if order == "second":
                assert isinstance(answers[0], ClientRetired)
            await trio.sleep(SETTINGS.create_hold_s + 1)
            assert backend.is_idle(), "a workspace is held by a client that said goodbye"


@orders
async def test_two_creates_of_one_directory_are_one_workspace(
    order: str, autojump_clock: object, tmp_path: object
) -> None:
    for number in rounds(order):
        async with engine() as backend:
            opened: list[Any] = []

            async def create(client: ClientId, backend: Backend = backend, opened: list[Any] = opened) -> None:
                opened.append(await backend.create_workspace(NewWorkspace(path=str(tmp_path), client_id=client)))

            await race(order, number, partial(create, ANN), partial(create, BOB))
            assert opened[0] is opened[1]
            assert backend.workspaces() == [opened[0]]


@orders
async def test_create_and_close_give_a_workspace_that_works(
    order: str, autojump_clock: object, tmp_path: object
) -> None:
    for number in rounds(order):
        async with engine() as backend:
            first = await backend.create_workspace(NewWorkspace(path=str(tmp_path), client_id=ANN))
            opened: list[Any] = []

            async def create(backend: Backend = backend, opened: list[Any] = opened) -> None:
                opened.append(await backend.create_workspace(NewWorkspace(path=str(tmp_path), client_id=BOB)))

            await race(order, number, create, partial(backend.delete_workspace, first.id))
            await trio.sleep(1)
            if order == "second":
                assert opened[0] is not first
                assert backend.workspace(first.id) is opened[0]
            elif order == "first":
                assert not is_open(backend, first.id)
            for workspace in backend.workspaces():
                assert (await workspace.sessions.create("works")).workspace_id == first.id

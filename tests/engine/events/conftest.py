"""A store in memory, with gates, and a log in front of it: the gates decide every order in these tests."""

from collections.abc import AsyncIterator

import pytest
import trio

from engine.store.sqlite import open_sqlite_store
from tests.doubles.store import GatedStore
from tests.engine.events.watching import Scene
from tests.engine.store.samples import make_workspace


@pytest.fixture
async def store() -> AsyncIterator[GatedStore]:
    """A gated store with a workspace `w` that has a session `s`; its log is at number 1."""
    async with open_sqlite_store(None) as inner:
        await make_workspace(inner)
        yield GatedStore(inner)


@pytest.fixture
async def scene(store: GatedStore) -> AsyncIterator[Scene]:
    """The store with a bus that is small enough to fall behind, and a running log."""
    scene = Scene(store)
    async with trio.open_nursery() as nursery:
        await nursery.start(scene.log.run)
        yield scene
        scene.log.close()

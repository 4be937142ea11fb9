"""The store, in both of its forms: every test that takes `store` runs against each."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.store.protocol import Store
from engine.store.sqlite import open_sqlite_store
from tests.engine.store.samples import make_workspace


@pytest.fixture(params=["threads", "memory"])
async def empty_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with open_sqlite_store(tmp_path / "data" if request.param == "threads" else None) as store:
        yield store


@pytest.fixture
async def store(empty_store: Store) -> Store:
    """A store with a workspace `w` that has a session `s`; the log is at number 1."""
    await make_workspace(empty_store)
    return empty_store

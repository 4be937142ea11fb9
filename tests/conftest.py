"""What every test may ask for."""

from collections.abc import AsyncIterator

import pytest

from engine.backend import Backend, open_backend
from engine.settings import EngineSettings
from tests.doubles.engine import Watched, open_watched


@pytest.fixture
async def backend(autojump_clock: object) -> AsyncIterator[Backend]:
    """An engine in memory with the offline model, under Trio's MockClock."""
    async with open_backend(EngineSettings(data_dir=None), environ={}) as backend:
        yield backend


@pytest.fixture
async def watched(autojump_clock: object, tmp_path: object) -> AsyncIterator[Watched]:
    """A workspace in memory whose agent does what the test says; every event is recorded, and checked at the end."""
    async with open_watched(path=str(tmp_path)) as watched:
        yield watched

"""What every test may ask for, and the order of tasks in each."""

import random
from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
import trio
from trio.testing import MockClock

from engine.backend import Backend, open_backend
from engine.settings import EngineSettings
from tests.doubles.engine import Watched, open_watched
from tests.doubles.task_order import ordered_by


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--order`."""
    parser.addoption("--order", default="0", help="a seed for the order in which Trio runs what is ready")


@pytest.fixture(autouse=True)
def task_order(request: pytest.FixtureRequest) -> Iterator[None]:
    """Trio runs the tasks that are ready in an order that nobody may rely on. Here a seed decides it: a test that fails
    in one order fails in it each time, and `--order` tries others."""
    with ordered_by(random.Random(f"{request.config.getoption('--order')} {request.node.nodeid}")):
        yield


@pytest.fixture(autouse=True)
def plain_logs() -> Iterator[None]:
    """Log without drawing tracebacks, which takes longer than the tests themselves."""
    before = structlog.get_config()
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()])
    yield
    structlog.configure(**before)


@pytest.fixture
async def backend(autojump_clock: object) -> AsyncIterator[Backend]:
    """An engine in memory with the offline model, under Trio's MockClock, which the test has to ask for as well."""
    check_clock()
    async with open_backend(EngineSettings(data_dir=None), environ={}) as backend:
        yield backend


@pytest.fixture
async def watched(autojump_clock: object, tmp_path: object) -> AsyncIterator[Watched]:
    """A workspace in memory whose agent does what the test says; every event is recorded, and checked at the end. The
    test has to ask for `autojump_clock` as well."""
    check_clock()
    async with open_watched(path=str(tmp_path)) as watched:
        yield watched


def check_clock() -> None:
    """pytest-trio takes the clock from the test's own arguments; one that only a fixture asks for is made and left
    aside, and the test would run on real time."""
    assert isinstance(trio.lowlevel.current_clock(), MockClock), "name `autojump_clock` among the test's arguments"

"""A piece of work in a repository, over HTTP, from the prompt to the tests that pass. `make demo` shows the same."""

from pathlib import Path

import pytest
import trio

from tests.doubles.live_server import open_live_server
from tests.story.developer_server import model_environment, open_developer
from tests.story.repository import environment, make_repository
from tests.story.telling import tell
from tests.story.work import missing

pytestmark = pytest.mark.slow

TEST_S = 90.0


async def test_a_mistake_is_found_mended_and_written_down_while_another_session_works(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "tally")
    with trio.fail_after(TEST_S):
        async with (
            open_developer() as model,
            open_live_server(tmp_path / "data", environ=environment() | model_environment(model)) as server,
        ):
            told = await tell(server, str(repository.root), lambda who, kind, line: None)
    assert not list(missing(repository, told))
    tests = repository.tests()
    assert tests.returncode == 0, tests.stderr

"""A few readers that lose their connection. `make reconnects` does it ten thousand times."""

from pathlib import Path

import pytest
import trio

from tests.crash.forks import ForkServer, open_forks
from tests.crash.reconnects import Reconnects, parser

pytestmark = pytest.mark.slow

TEST_S = 240.0


async def test_r28_readers_that_lose_their_connection_miss_nothing_and_read_nothing_twice(
    fork_server: ForkServer, tmp_path: Path
) -> None:
    """Cut by a proxy in the middle of an event, dropped by themselves, canceled; over three servers."""
    options = parser().parse_args(["--count", "75", "--each", "25", "--readers", "8", "--sessions", "2"])
    with trio.fail_after(TEST_S):
        async with open_forks(fork_server) as forks:
            reconnects = Reconnects(options.seed, forks, tmp_path, options)
            await reconnects.run()
    assert reconnects.audience is not None
    assert reconnects.audience.followed
    assert reconnects.words
    assert sum(reconnects.restarts.values())

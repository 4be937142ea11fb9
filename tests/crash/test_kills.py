"""A few kills of real servers: each point once, and some at random moments. `make crash` does many more."""

from pathlib import Path

import pytest
import trio

from tests.crash.case import Case, Size
from tests.crash.forks import ForkServer, open_forks
from tests.crash.plans import RANDOM, first_and_others, is_leaving

pytestmark = pytest.mark.slow

TEST_S = 480.0
CHAINS = 2
SMALL = Size(in_flight=8, sessions=5)


def chains() -> list[list[str]]:
    """Each point once, and each kind of random moment, on as few data directories as keeps them apart."""
    first, others = first_and_others()
    lanes = [others[at::CHAINS] for at in range(CHAINS)]
    return [[*first[at::CHAINS], RANDOM, *lane] for at, lane in enumerate(lanes)]


@pytest.mark.parametrize(("seed", "deaths"), list(enumerate(chains())))
async def test_r25_whatever_a_server_dies_of_its_clients_were_told_the_truth(
    seed: int, deaths: list[str], fork_server: ForkServer, tmp_path: Path
) -> None:
    """The same harness as `make crash`, with little load."""
    with trio.fail_after(TEST_S):
        async with open_forks(fork_server) as forks:
            case = Case(seed, forks, tmp_path, SMALL)
            await case.run(deaths)
    # Who leaves in time does not die of it.
    assert case.tally.kills.keys() >= {death for death in deaths if not is_leaving(death)}
    assert case.tally.interrupted
    assert case.tally.retried

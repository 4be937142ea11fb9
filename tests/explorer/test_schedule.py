"""A seed decides everything: the same seed, the same story."""

import hashlib
import os
import subprocess
import sys

from tests.explorer.explore import Explorer, Schedule, Verdict, play, schedule_of

SEEDS = range(12)


def stories(seeds: range) -> dict[int, str]:
    """A digest of all that happened in each schedule, played one after another in one `trio.run`."""
    told: dict[int, str] = {}

    def found(schedule: Schedule, verdict: Verdict) -> None:
        told[schedule.seed] = digest(verdict)

    Explorer(found, tells=True).explore(map(schedule_of, seeds))
    return told


def digest(verdict: Verdict) -> str:
    """All that happened, in short."""
    return hashlib.sha256("\n".join(verdict.story).encode()).hexdigest()


def test_r34_the_same_seed_gives_the_same_story_alone_or_among_others() -> None:
    told = stories(SEEDS)
    assert len(set(told.values())) > len(SEEDS) // 2
    assert {seed: digest(play(schedule_of(seed), tells=True)) for seed in reversed(SEEDS)} == told


def test_r34_the_same_seed_gives_the_same_story_in_every_process() -> None:
    program = "from tests.explorer.test_schedule import SEEDS, stories; print(stories(SEEDS))"
    told = {
        subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, timeout=120,
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        ).stdout
        for hash_seed in ("1", "2")
    }  # fmt: skip
    assert len(told) == 1

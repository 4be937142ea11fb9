"""The command: explore many schedules, replay one, or look for bugs that are planted."""

import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from multiprocessing import get_context

import click

from tests.explorer.explore import explore_chunk, first_violation, play, schedule_of
from tests.explorer.planted import BUGS
from tests.explorer.shrink import shrink

CHUNK = 500  # schedules that a process is given at once


@click.command()
@click.option("--seed", type=int, help="Play the schedule of this seed alone.")
@click.option("--first", type=int, default=0, show_default=True, help="The first seed.")
@click.option("--count", type=int, default=2000, show_default=True, help="How many seeds.")
@click.option("--jobs", type=int, default=1, show_default=True, help="How many processes.")
@click.option("--shrink", "shrinks", is_flag=True, help="With --seed: leave out what its violation does not need.")
@click.option("--planted", is_flag=True, help="Plant each of the known bugs in turn, and look how soon it is found.")
@click.option("--bug", type=click.Choice(list(BUGS)), help="Plant this bug.")
@click.option("-v", "--verbose", is_flag=True, help="Show the scenario, and what happened.")
def main(
    seed: int | None, first: int, count: int, jobs: int, shrinks: bool, planted: bool, bug: str | None, verbose: bool
) -> None:
    """Explore schedules of the engine and check what the run contract promises."""
    if planted:
        sys.exit(find_planted(first, count))
    with BUGS[bug].plant() if bug is not None else nullcontext():
        sys.exit(replay(seed, shrinks=shrinks, verbose=verbose) if seed is not None else explore(first, count, jobs))


def find_planted(first: int, count: int) -> int:
    """Look for each planted bug, and say how many schedules it took."""
    missed = 0
    for name, bug in BUGS.items():
        begun = time.perf_counter()
        with bug.plant():
            found, played = first_violation(range(first, first + count))
        missed += found is None
        what = f"seed {found[0].seed}: {found[1].kind}" if found is not None else "NOT FOUND"
        click.echo(f"{name:36} {played:6} schedules {time.perf_counter() - begun:6.1f} s  {what[:110]}")
    click.echo(f"{len(BUGS) - missed} of {len(BUGS)} planted bugs found")
    return 1 if missed else 0


def replay(seed: int, *, shrinks: bool, verbose: bool) -> int:
    """Play one schedule, and say what came of it."""
    schedule = schedule_of(seed)
    if shrinks and (kind := play(schedule).kind):
        schedule = shrink(schedule, kind)
        verbose = True
    verdict = play(schedule, tells=verbose)
    if verbose:
        click.echo(str(schedule.scenario))
        click.echo("\n".join(verdict.story))
    for violation in verdict.violations:
        click.echo(f"VIOLATION: {violation}")
    click.echo(f"seed {seed}: {len(verdict.violations)} violations, {verdict.runs} runs, {verdict.passes} passes")
    return 1 if verdict.violations else 0


def explore(first: int, count: int, jobs: int) -> int:
    """Play many, and show what was violated, by kind."""
    begun = time.perf_counter()
    kinds: defaultdict[str, list[int]] = defaultdict(list)
    done = runs = 0
    chunks = [range(start, min(start + CHUNK, first + count)) for start in range(first, first + count, CHUNK)]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for seeds, verdicts in pool.map(explore_chunk, chunks):
            done, runs = done + seeds, runs + sum(verdict.runs for _, verdict in verdicts)
            for seed, verdict in verdicts:
                if verdict.violations:
                    kinds[verdict.kind].append(seed)
            rate = done / (time.perf_counter() - begun)
            click.echo(
                f"\r{done} schedules, {runs} runs, {rate:.0f}/s, {sum(map(len, kinds.values()))} violations", nl=False
            )
    click.echo()
    for kind, violated in sorted(kinds.items(), key=lambda item: -len(item[1])):
        click.echo(f"{len(violated):6} × {kind}\n         seeds {violated[:8]}")
        click.echo(f'         make explore ARGS="--seed {violated[0]} --shrink" shows one, and no more than it needs')
    return 1 if kinds else 0


if __name__ == "__main__":
    main()

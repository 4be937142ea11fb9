"""The command: play many examples, and show the smallest one that breaks a promise."""

import sys
import time

import click
from hypothesis.stateful import run_state_machine_as_test

from tests.machine.machine import ServiceMachine
from tests.machine.play import played, settings_for


@click.command()
@click.option("--examples", type=int, default=1000, show_default=True, help="How many examples.")
@click.option("--seed", type=int, help="What they are drawn from; without it, others each time.")
@click.option("--shrink/--no-shrink", default=True, show_default=True, help="Make what fails as small as it can be.")
def main(examples: int, seed: int | None, shrink: bool) -> None:
    """Play clients of the whole service, and check what it promises them."""
    begun = time.process_time()
    seed = time.time_ns() % 2**32 if seed is None else seed
    try:
        with played(ServiceMachine, seed) as machine:
            run_state_machine_as_test(machine, settings=settings_for(examples, is_fixed=False, shrinks=shrink))
    except BaseException as error:
        click.echo("\n".join((*getattr(error, "__notes__", ()), str(error))))
        click.echo(f"seed {seed}: a promise was broken")
        if not isinstance(error, AssertionError):
            raise
        sys.exit(1)
    click.echo(f"seed {seed}: {ServiceMachine.played} examples in {time.process_time() - begun:.0f} s, nothing broken")


if __name__ == "__main__":
    main()

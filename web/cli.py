"""The command `countermand`.

Its subcommands are imported when they are called: nobody waits for a web server in order to read the help.
"""

import os
import sys
from importlib import import_module
from importlib.metadata import version
from typing import NamedTuple, cast

import click

from engine.errors import ConfigInvalid, CountermandError, StoreError
from web.client_errors import ClientError, ServerProblem, ServerUnreachable
from web.commands.exits import CANCELED, FAILED, PIPE_CLOSED, REFUSED, UNREACHABLE, USAGE
from web.commands.visible import visible

TOKEN_HINT = " (here: --token, --token-file or COUNTERMAND_TOKEN)"


class Subcommand(NamedTuple):
    """Where a subcommand is, and its line in the help."""

    module: str
    help: str


SUBCOMMANDS = {
    "run": Subcommand("web.commands.run", "Answer one prompt and print the answer as it comes."),
    "serve": Subcommand("web.commands.serve", "Start a server."),
    "sessions": Subcommand("web.commands.sessions", "List the sessions of a directory."),
    "runs": Subcommand("web.commands.runs", "List the runs of a directory."),
    "cancel": Subcommand("web.commands.cancel", "Cancel a run, or everything in a session."),
    "check": Subcommand("web.commands.check", "Check that a store is whole."),
    "backup": Subcommand("web.commands.backup", "Copy a store, also under a running server."),
    "token": Subcommand("web.commands.token", "Make, list and revoke the tokens of a server."),
}


class LazyGroup(click.Group):
    """Finds subcommands by name and imports no more than the one that is called. Each module calls it `command`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in the order of their use."""
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The one of this name."""
        found = SUBCOMMANDS.get(cmd_name)
        return cast("click.Command", import_module(found.module).command) if found else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in the help, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, found.help) for name, found in SUBCOMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("countermand"), message="countermand %(version)s")
def cli() -> None:
    """Runs AI agents so that every accepted prompt has exactly one ending, and every one can be countermanded."""


def main() -> None:
    """Run the command, and leave with its exit code. What goes wrong is one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        # What a model says has characters that a terminal's encoding may lack.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    if "_COUNTERMAND_COMPLETE" in os.environ:
        cli.main(prog_name="countermand")  # the shell asks what could follow
    sys.exit(run_cli(sys.argv[1:]))


def run_cli(arguments: list[str]) -> int:
    """Run the command with these arguments; the exit code."""
    code = 0
    try:
        # Not `cli.main`, which ends the process with codes of its own.
        with cli.make_context("countermand", arguments) as context:
            code = int(cli.invoke(context) or 0)
        sys.stdout.flush()
    except* click.exceptions.Exit as done:
        code = cast("click.exceptions.Exit", _leaves(done)[0]).exit_code
    except* click.ClickException as usage:
        code = _show_usage(usage)
    except* (click.Abort, KeyboardInterrupt):
        code = CANCELED
    except* BrokenPipeError:
        code = PIPE_CLOSED
        # Python would complain at its exit, when it flushes what nobody takes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except* (CountermandError, ClientError) as failures:
        code = _show(failures)
    return code


def _show_usage(usage: BaseExceptionGroup[click.ClickException]) -> int:
    first = _leaves(usage)[0]
    assert isinstance(first, click.ClickException)
    first.show()
    return USAGE


def _show(failures: BaseExceptionGroup[Exception]) -> int:
    leaves = _leaves(failures)
    for leaf in leaves:
        hint = TOKEN_HINT if isinstance(leaf, ServerProblem) and leaf.status == 401 else ""
        click.echo(f"countermand: {visible(str(leaf))}{hint}", err=True)
    return exit_code(leaves[0])


def exit_code(failure: BaseException) -> int:
    """How the command ends after this went wrong."""
    match failure:
        case ConfigInvalid():
            return USAGE
        case ServerUnreachable():
            return UNREACHABLE
        case StoreError():
            return FAILED
        case _:
            return REFUSED


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """What is inside, groups within groups unpacked, each text once."""
    found: dict[str, BaseException] = {}
    for each in group.exceptions:
        inner = _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
        found.update({str(leaf): leaf for leaf in inner})
    return list(found.values())

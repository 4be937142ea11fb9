"""`countermand token`: who may call a server over TCP."""

from pathlib import Path

import click

from engine.clock import calendar_us, rfc3339
from engine.errors import ConfigInvalid, NotFound
from web.auth.tokens import Scope, TokenStore
from web.commands.options import data_dir_option
from web.commands.serve import TOKENS
from web.commands.table import print_table


@click.group(short_help="Make, list and revoke the tokens of a server.")
def command() -> None:
    """Make, list and revoke the tokens of a server. A server that is running notices at once."""


@command.command()
@click.argument("name")
@click.option("--scope", type=click.Choice(["read", "run", "admin"]), default="run", show_default=True,
              help="read: look; run: send prompts and cancel them; admin: everything.")  # fmt: skip
@data_dir_option
def create(name: str, scope: Scope, data_dir: Path) -> None:
    """Make a token called NAME and print its secret. It is shown this once."""
    click.echo(_store(data_dir).create(name, scope, now_us=calendar_us()))


@command.command(name="list")
@data_dir_option
def list_tokens(data_dir: Path) -> None:
    """List the tokens, without their secrets."""
    rows = [(each.name, each.scope, rfc3339(each.created_at_us)[:19] + "Z") for each in _store(data_dir).list()]
    print_table(("NAME", "SCOPE", "CREATED"), rows, empty=f"there are no tokens in {data_dir}")


@command.command()
@click.argument("name")
@data_dir_option
def revoke(name: str, data_dir: Path) -> None:
    """Make the token called NAME worthless."""
    try:
        _store(data_dir).revoke(name)
    except NotFound:
        raise ConfigInvalid("name", f"there is no token {name!r} in {data_dir}") from None
    click.echo(f"countermand: token {name!r} is revoked", err=True)


def _store(data_dir: Path) -> TokenStore:
    return TokenStore(data_dir.absolute() / TOKENS)

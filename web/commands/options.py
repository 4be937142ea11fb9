"""Options that several subcommands have."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from engine.errors import ConfigInvalid
from web.address import DEFAULT_HOST

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Where the store is, unless somebody says otherwise."""
    if named := environ.get("COUNTERMAND_DATA_DIR"):
        return Path(named)
    shared = environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(shared).expanduser() / "countermand"


data_dir_option: Decorator = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=lambda: default_data_dir(os.environ),
    show_default="$COUNTERMAND_DATA_DIR, else $XDG_DATA_HOME/countermand, else ~/.local/share/countermand",
    help="Where sessions, runs and tokens are kept.",
)
cwd_option: Decorator = click.option(
    "--cwd",
    type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path),
    default=Path.cwd,
    show_default="here",
    help="The directory to work in.",
)
token_option: Decorator = click.option(
    "--token", envvar="COUNTERMAND_TOKEN", metavar="SECRET", help="For a server on TCP. [env: COUNTERMAND_TOKEN]"
)
token_file_option: Decorator = click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file that holds the token alone.",
)
host_option: Decorator = click.option(
    "--host",
    "-H",
    envvar="COUNTERMAND_HOST",
    default=DEFAULT_HOST,
    show_default=True,
    metavar="ADDRESS",
    help="The server: tcp://ADDRESS:PORT or unix:///PATH. [env: COUNTERMAND_HOST]",
)
json_option: Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON, one document a line.")


def read_token(token: str | None, token_file: Path | None) -> str | None:
    """The token to send. Raises ConfigInvalid for a file that cannot be read."""
    if token_file is None:
        return token or None
    try:
        return token_file.read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid("token-file", f"cannot read {str(token_file)!r}: {error}") from None

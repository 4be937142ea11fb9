"""`countermand serve`: a server, until it is told to leave."""

import os
from pathlib import Path

import click
import trio

from engine.clock import calendar_us
from engine.config import load_config
from web.address import DEFAULT_HOST, UnixAddress, parse_address
from web.auth import TokenStore, WebSettings
from web.commands.options import data_dir_option
from web.control import ServerControl
from web.logs import LogLevel, configure_logs
from web.overdue import bounded_end
from web.serve import ServerSettings, open_server

TOKENS = "tokens.json"
LEVELS = ("debug", "info", "warning", "error")
FIRST_TOKEN = "admin"


@click.command(short_help="Start a server.")
@click.option(
    "--host",
    "-H",
    "hosts",
    multiple=True,
    default=(DEFAULT_HOST,),
    show_default=True,
    metavar="ADDRESS",
    help="Where to listen: tcp://ADDRESS:PORT (port 0: any) or unix:///PATH. May be repeated.",
)
@data_dir_option
@click.option("--no-token", is_flag=True, help="Let callers from this machine in without a token. Loopback only.")
@click.option("--drain", "drain_s", type=click.FloatRange(0), default=None, metavar="SECONDS",
              help="How long active runs may finish after SIGTERM until they are canceled.  [default: 10]")  # fmt: skip
@click.option("--idle-timeout", "idle_timeout_s", type=click.FloatRange(0), default=None, metavar="SECONDS",
              help="Leave when no workspace was open for this long.  [default: never]")  # fmt: skip
@click.option(
    "--allow-host", "allow_hosts", multiple=True, metavar="NAME", help="A name that this server is called by."
)
@click.option("--allow-origin", "allow_origins", multiple=True, metavar="ORIGIN", help="A web origin that may call.")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
@click.option("--log-json", is_flag=True, help="Log JSON, one document a line.")
def command(
    hosts: tuple[str, ...],
    data_dir: Path,
    no_token: bool,
    drain_s: float | None,
    idle_timeout_s: float | None,
    allow_hosts: tuple[str, ...],
    allow_origins: tuple[str, ...],
    log_level: LogLevel,
    log_json: bool,
) -> int:
    """Start a server.

    On TCP callers need a token; the first start makes one and prints it. On a Unix socket the owner of the socket needs
    none.

    SIGTERM and Ctrl-C let active runs finish for --drain seconds, then cancel them; what waits stays, and runs after
    the next start. A second one skips the wait, a third one gives everything five seconds.
    """
    configure_logs(level=log_level, as_json=log_json)
    config = load_config(data_dir, os.environ)
    settings = ServerSettings(
        engine=config.engine_in(data_dir.absolute(), drain_s=drain_s, idle_timeout_s=idle_timeout_s),
        models=config.models,
        options=config.options,
        hosts=hosts,
        web=WebSettings(
            token_file=data_dir.absolute() / TOKENS,
            open_loopback=no_token,
            allowed_hosts=allow_hosts,
            allowed_origins=allow_origins,
        ),
    )
    trio.run(_serve, settings)
    return 0


async def _serve(settings: ServerSettings) -> None:
    control = ServerControl()
    async with bounded_end(control, settings.engine), open_server(settings, control, handle_signals=True):
        try:
            click.echo(f"countermand is listening on {' and '.join(control.addresses)}; {_who_may_call(settings)}")
            await control.wait_shutdown_requested()
        finally:
            control.request_shutdown("the server failed")


def _who_may_call(settings: ServerSettings) -> str:
    """How to be let in. The first token is made here: by now the data directory is known to be ours."""
    if all(isinstance(parse_address(host), UnixAddress) for host in settings.hosts):
        return "whoever owns the socket may call"
    if settings.web.open_loopback:
        return "callers from this machine need no token"
    assert settings.web.token_file is not None
    store = TokenStore(settings.web.token_file)
    if store.list():
        return "callers need a token: countermand token create NAME"
    secret = store.create(FIRST_TOKEN, "admin", now_us=calendar_us())
    return (
        f"callers need a token, and this is the first one. It is shown this once, and kept as a hash in "
        f"{settings.web.token_file}:\n\n    export COUNTERMAND_TOKEN={secret}\n"
    )

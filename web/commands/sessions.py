"""`countermand sessions`: what was talked about in a directory."""

from pathlib import Path
from uuid import uuid4

import click
import msgspec
import trio

from engine.clock import rfc3339
from web.client import open_client
from web.commands.options import cwd_option, host_option, json_option, read_token, token_file_option, token_option
from web.commands.table import print_table
from web.wire.sessions import Session


@click.command(short_help="List the sessions of a directory.")
@host_option
@token_option
@token_file_option
@cwd_option
@json_option
def command(host: str, token: str | None, token_file: Path | None, cwd: Path, as_json: bool) -> None:
    """List the sessions of a directory, the most recently changed first."""
    sessions = trio.run(_sessions, host, read_token(token, token_file), cwd)
    if as_json:
        for session in sessions:
            click.echo(msgspec.json.encode(session))
        return
    rows = [(each.id, _moment(each.updated_at), str(each.message_count), each.title) for each in sessions]
    print_table(("SESSION", "CHANGED", "MESSAGES", "TITLE"), rows, empty=f"there are no sessions in {cwd}")


async def _sessions(host: str, token: str | None, cwd: Path) -> list[Session]:
    async with open_client(host, token=token) as client:
        client_id = str(uuid4())
        workspace = await client.create_workspace(str(cwd), client_id=client_id)
        sessions = await client.sessions(workspace.id)
        await client.retire(client_id)
        return sessions


def _moment(seconds: int) -> str:
    return rfc3339(seconds * 1_000_000)[:19] + "Z"

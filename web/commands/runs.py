"""`countermand runs`: what became of the prompts in a directory."""

from pathlib import Path
from uuid import uuid4

import click
import msgspec
import trio

from engine.records.run import RunState
from web.client import open_client
from web.commands.options import cwd_option, host_option, json_option, read_token, token_file_option, token_option
from web.commands.table import one_line, print_table
from web.wire.runs import PAGE_MAX, Run

PROMPT_LENGTH = 60  # characters of a prompt that are shown


@click.command(short_help="List the runs of a directory.")
@host_option
@token_option
@token_file_option
@cwd_option
@click.option("--session", "session_id", metavar="ID", help="Only those of this session.")
@click.option("--state", "states", multiple=True, type=click.Choice([each.value for each in RunState]),
              help="Only those in this state. May be repeated.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1, PAGE_MAX), default=20, show_default=True, help="The most to show.")
@json_option
def command(
    host: str,
    token: str | None,
    token_file: Path | None,
    cwd: Path,
    session_id: str | None,
    states: tuple[str, ...],
    limit: int,
    as_json: bool,
) -> None:
    """List the runs of a directory, the newest first."""
    wanted = tuple(map(RunState, states))
    runs = trio.run(_runs, host, read_token(token, token_file), cwd, session_id, wanted, limit)
    if as_json:
        for run in runs:
            click.echo(msgspec.json.encode(run))
        return
    rows = [
        (each.id, each.state.value, each.accepted_at[:19] + "Z", one_line(each.prompt, PROMPT_LENGTH)) for each in runs
    ]
    print_table(("RUN", "STATE", "ACCEPTED", "PROMPT"), rows, empty=f"there are no such runs in {cwd}")


async def _runs(
    host: str, token: str | None, cwd: Path, session_id: str | None, states: tuple[RunState, ...], limit: int
) -> tuple[Run, ...]:
    async with open_client(host, token=token) as client:
        client_id = str(uuid4())
        workspace = await client.create_workspace(str(cwd), client_id=client_id)
        found = await client.runs(workspace.id, session_id=session_id, states=states, limit=limit)
        await client.retire(client_id)
        return found.runs

"""`countermand cancel`: a run, or everything in a session."""

from pathlib import Path

import click
import msgspec
import trio

from web.client import CountermandClient, open_client
from web.client_errors import ServerProblem
from web.commands.options import host_option, json_option, read_token, token_file_option, token_option
from web.wire.runs import CanceledRun


@click.command(short_help="Cancel a run, or everything in a session.")
@click.argument("run_id", required=False)
@click.option("--session", "session_id", metavar="ID", help="Cancel everything accepted for this session until now.")
@host_option
@token_option
@token_file_option
@json_option
def command(
    run_id: str | None, session_id: str | None, host: str, token: str | None, token_file: Path | None, as_json: bool
) -> None:
    """Cancel the run RUN_ID, or with --session everything in a session.

    When this returns the cancel is stored: each run that it names ends `canceled`, whatever happens next.
    """
    if (run_id is None) == (session_id is None):
        raise click.UsageError("Name one run, or one session with --session.")
    canceled = trio.run(_cancel, host, read_token(token, token_file), run_id, session_id)
    if as_json:
        click.echo(msgspec.json.encode(canceled))
    elif canceled.canceled:
        for each in canceled.canceled:
            click.echo(each)
    elif run_id is not None:
        click.echo(f"countermand: run {run_id} had ended before: {canceled.state}", err=True)
    else:
        click.echo(f"countermand: nothing was going on in session {session_id}", err=True)


class Canceled(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the cancel covers, and for a single run its state."""

    canceled: tuple[str, ...]
    state: str = ""


async def _cancel(host: str, token: str | None, run_id: str | None, session_id: str | None) -> Canceled:
    async with open_client(host, token=token) as client:
        if run_id is not None:
            found = await _cancel_run(client, run_id)
            return Canceled(found.canceled, found.state.value)
        assert session_id is not None
        return Canceled(await _cancel_session(client, session_id))


async def _cancel_run(client: CountermandClient, run_id: str) -> CanceledRun:
    """A run belongs to one of the open workspaces: in a closed one nothing is left to cancel."""
    for workspace in await client.workspaces():
        try:
            return await client.cancel_run(workspace.id, run_id)
        except ServerProblem as problem:
            if problem.status != 404:
                raise
    raise ServerProblem(404, "run_not_found", f"there is no run {run_id!r} in any open workspace of {client.host}")


async def _cancel_session(client: CountermandClient, session_id: str) -> tuple[str, ...]:
    canceled: list[str] = []
    for workspace in await client.workspaces():
        try:
            canceled += (await client.cancel_session(workspace.id, session_id)).canceled
        except ServerProblem as problem:
            if problem.status != 404:
                raise
    return tuple(canceled)

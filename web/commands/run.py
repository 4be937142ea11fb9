"""`countermand run`: one prompt, and its answer as it comes."""

import os
import select
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from pathlib import Path
from uuid import uuid4

import click
import msgspec
import trio

from engine.records.ids import new_run_id
from engine.records.run import IfBusy, RunState
from web.client import CountermandClient, open_client
from web.client_errors import ClientError, ServerProblem
from web.client_run import RunResult
from web.commands.asking import AskRules, StdinTerminal, open_asker
from web.commands.exits import CANCELED, COMPLETED, FAILED
from web.commands.interrupts import Interrupts, catch_interrupts
from web.commands.options import (
    cwd_option,
    data_dir_option,
    read_token,
    token_file_option,
    token_option,
)
from web.commands.run_output import JsonOutput, PlainOutput, RunOutput

STDIN_S = 2.0  # after which somebody who waits for stdin is told so
GOODBYE_S = 2.0  # bound of saying goodbye to the server

EPILOG = """Exit codes: 0 completed; 1 failed; 2 wrong usage; 3 no server answers; 4 refused (busy, full, not found, not
allowed); 130 canceled."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for."""

    prompt: str
    cwd: Path
    data_dir: Path
    host: str | None
    token: str | None
    session_id: str | None
    is_continued: bool
    model: str | None
    timeout_s: float | None
    if_busy: IfBusy
    rules: AskRules


@click.command(short_help="Answer one prompt and print the answer as it comes.", epilog=EPILOG)
@click.argument("prompt", nargs=-1)
@click.option("--host", "-H", envvar="COUNTERMAND_HOST", metavar="ADDRESS",
              help="The server to ask: tcp://ADDRESS:PORT or unix:///PATH. [env: COUNTERMAND_HOST; default: one inside this command]")  # noqa: E501 # fmt: skip
@token_option
@token_file_option
@cwd_option
@data_dir_option
@click.option("--session", "-s", "session_id", metavar="ID", help="Go on in this session.")
@click.option("--continue", "-C", "is_continued", is_flag=True, help="Go on in the session that was changed last.")
@click.option("--model", "-m", metavar="PROVIDER/MODEL", help="The model to ask.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), metavar="SECONDS",
              help="Give the run up after this long.")  # fmt: skip
@click.option("--if-busy", type=click.Choice([each.value for each in IfBusy]), default=IfBusy.ENQUEUE.value,
              show_default=True, help="What to do while the session has another run.")  # fmt: skip
@click.option("--allow", "allowed", multiple=True, metavar="TOOL[:ACTION]",
              help="Allow this tool in the directory without asking. May be repeated.")  # fmt: skip
@click.option("--yolo", "allow_all", is_flag=True, help="Allow everything without asking, outside the directory too.")
@click.option("--ask/--no-ask", "asks", default=None,
              help="Ask what the run asks on the terminal.  [default: if there is one]")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one a line; the last line is the result.")
@click.option("--quiet", "-q", "is_quiet", is_flag=True, help="Say nothing but the answer, and what went wrong.")
def command(
    prompt: tuple[str, ...],
    host: str | None,
    token: str | None,
    token_file: Path | None,
    cwd: Path,
    data_dir: Path,
    session_id: str | None,
    is_continued: bool,
    model: str | None,
    timeout_s: float | None,
    if_busy: str,
    allowed: tuple[str, ...],
    allow_all: bool,
    asks: bool | None,
    as_json: bool,
    is_quiet: bool,
) -> int:
    """Answer PROMPT and print the answer as it comes.

    What is piped in is added to the prompt; a PROMPT of `-` is read from stdin alone. Without --host the engine runs
    inside this command, on the same data that a server would use.

    What a tool needs a permission for is asked on the terminal, and so are the agent's questions; without one, and
    with --no-ask, the agent is told that nobody is there. With --allow and no terminal, everything else is denied.

    Ctrl-C cancels the run and waits until it has ended; a second one leaves at once.
    """
    if session_id and is_continued:
        raise click.UsageError("--session and --continue exclude each other.")
    request = Request(
        prompt=read_prompt(prompt),
        cwd=cwd,
        data_dir=data_dir.absolute(),
        host=host or None,
        token=read_token(token, token_file),
        session_id=session_id,
        is_continued=is_continued,
        model=model,
        timeout_s=timeout_s,
        if_busy=IfBusy(if_busy),
        rules=AskRules(root=cwd, allowed=frozenset(allowed), allow_all=allow_all, asks_terminal=_asks_terminal(asks)),
    )
    output = JsonOutput() if as_json else PlainOutput(is_quiet=is_quiet)
    return trio.run(_run, request, output)


def _asks_terminal(asks: bool | None) -> bool:
    """Whether there is a terminal to ask on that is to be used. Raises UsageError if it must be, and is not there."""
    has_one = sys.stdin.isatty() and sys.stderr.isatty()
    if asks and not has_one:
        raise click.UsageError("--ask needs a terminal on stdin and stderr.")
    return has_one if asks is None else asks


def read_prompt(words: tuple[str, ...]) -> str:
    """The prompt, with what is piped in. Raises UsageError if there is none."""
    given = " ".join(words).strip()
    is_from_stdin = given == "-"
    piped = ""
    if is_from_stdin or _is_piped():
        if not sys.stdin.isatty() and not select.select([sys.stdin], [], [], STDIN_S)[0]:
            click.echo(
                "countermand: waiting for the rest of the prompt on stdin (</dev/null if there is none)", err=True
            )
        try:
            piped = sys.stdin.buffer.read().decode().strip()
        except UnicodeDecodeError:
            raise click.UsageError("What is piped in is no UTF-8 text.") from None
    prompt = piped if is_from_stdin else "\n\n".join(filter(None, (given, piped)))
    if not prompt:
        raise click.UsageError("There is no prompt: give one, or pipe one in.")
    return prompt


def _is_piped() -> bool:
    """Whether stdin is a pipe or a file. Anything else (a terminal, /dev/null, a supervisor's socket) has nothing for
    the prompt, or would be waited for in vain."""
    with suppress(OSError, ValueError):
        mode = os.fstat(sys.stdin.fileno()).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
    return False


async def _run(request: Request, output: RunOutput) -> int:
    code = CANCELED
    with catch_interrupts() as interrupts, interrupts.insisted:
        async with _open_any_server(request) as host, open_client(host, token=request.token) as client:
            code = await _ask(client, request, output, interrupts)
    return code


@asynccontextmanager
async def _open_any_server(request: Request) -> AsyncIterator[str]:
    """The address of the server to ask: the one that was named, or one made here for this prompt alone."""
    if request.host is not None:
        yield request.host
        return
    # Imported only now: a whole server is too much to load for somebody who has one already.
    async with import_module("web.commands.embedded").open_embedded(request.data_dir) as host:
        yield host


async def _ask(client: CountermandClient, request: Request, output: RunOutput, interrupts: Interrupts) -> int:
    """Ask, show, and cancel if interrupted."""
    client_id = str(uuid4())
    result = None
    with interrupts.asked():
        workspace = await client.create_workspace(str(request.cwd), client_id=client_id)
    if interrupts.count:
        return CANCELED
    try:
        with interrupts.asked():
            await client.attend(workspace.id, is_interactive=request.rules.is_interactive)
            session_id = await _session(client, workspace.id, request)
        if not interrupts.count:
            result = await _follow(client, request, output, interrupts, (workspace.id, session_id, client_id))
    finally:
        patience_s = GOODBYE_S if interrupts.count < 2 else 0.0
        with trio.move_on_after(patience_s, shield=True), suppress(ClientError):
            await client.retire(client_id)
    if result is None:
        output.note("canceled before it began")
        return CANCELED
    output.finish(result)
    return _exit_code(result)


async def _session(client: CountermandClient, workspace_id: str, request: Request) -> str:
    if request.session_id is not None:
        return (await client.session(workspace_id, request.session_id)).id
    if request.is_continued:
        sessions = await client.sessions(workspace_id)
        if not sessions:
            raise ServerProblem(404, "session_not_found", f"there is no session in {request.cwd} to go on in", None)
        return sessions[0].id
    return (await client.create_session(workspace_id, "")).id


async def _follow(
    client: CountermandClient,
    request: Request,
    output: RunOutput,
    interrupts: Interrupts,
    ids: tuple[str, str, str],
) -> RunResult | None:
    """Send the prompt and show its run until it has ended. None if it was interrupted before it was accepted."""
    workspace_id, session_id, client_id = ids
    run_id = new_run_id()
    is_accepted = False
    with interrupts.asked():
        await client.send_prompt(
            workspace_id,
            session_id,
            request.prompt,
            run_id=run_id,
            if_busy=request.if_busy,
            model=request.model,
            timeout_s=request.timeout_s,
        )
        is_accepted = True
    if not is_accepted:
        # It may have arrived all the same: its id was made here, so that it can be canceled all the same.
        with suppress(ServerProblem):
            await client.cancel_run(workspace_id, run_id)
        return None
    async with client.open_run(workspace_id, run_id, client_id=client_id) as run:
        async with open_asker(client, workspace_id, request.rules, StdinTerminal(output)) as asker:
            if request.rules.is_interactive:
                run.on_event = asker.see
            with interrupts.asked():
                await output.follow(run)
            run.on_event = None  # nobody is asked on behalf of a run that is being canceled
        if not run.is_over:
            output.note("canceling the run; once more to leave at once …")
            await client.cancel_run(workspace_id, run_id)
            await output.follow(run)
        return run.result


def _exit_code(result: RunResult) -> int:
    return {RunState.COMPLETED: COMPLETED, RunState.CANCELED: CANCELED}.get(result.state, FAILED)

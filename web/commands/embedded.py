"""A server inside the command, for one prompt: on a private Unix socket, over the data that a server would use."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from engine.config import load_config
from engine.errors import StoreLocked
from web.address import DEFAULT_HOST
from web.client import open_client
from web.client_errors import ClientError, ServerProblem, ServerUnreachable
from web.control import ServerControl
from web.logs import configure_logs
from web.overdue import bounded_end
from web.serve import ServerSettings, open_server


@asynccontextmanager
async def open_embedded(data_dir: Path) -> AsyncIterator[str]:
    """Start the engine, and give the address to ask it at. Raises ServerProblem if a server has the data already."""
    configure_logs(level="error")
    # In a directory of our own, mode 0700, and under a short path: that of a socket may not be long.
    directory = Path(tempfile.mkdtemp(prefix="countermand-", dir="/tmp"))
    host = f"unix://{directory}/socket"
    config = load_config(data_dir, os.environ)
    settings = ServerSettings(
        engine=config.engine_in(data_dir), models=config.models, options=config.options, hosts=(host,)
    )  # fmt: skip
    control = ServerControl()
    try:
        # What waits in other directories is for a server to take up: here it would be begun, and broken off at the end.
        async with bounded_end(control, settings.engine), open_server(settings, control, recover=False):
            try:
                yield host
            except trio.Cancelled:
                control.force()  # a second Ctrl-C
                raise
            finally:
                control.request_shutdown("the command is done")
    except StoreLocked as locked:
        raise ServerProblem(409, "data_in_use", f"{locked}. {await _how_to_ask_it()}") from None
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _how_to_ask_it() -> str:
    """What to do when a server has the data already."""
    async with open_client(DEFAULT_HOST) as client:
        try:
            await client.version()
        except ServerUnreachable:
            return "To ask that server, name its address with --host"
        except ClientError:
            pass  # it wants a token, but it is there
    return f"To ask that server: countermand run --host {DEFAULT_HOST} (or set COUNTERMAND_HOST)"

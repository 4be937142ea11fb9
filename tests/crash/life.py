"""One life of a server: the process that is forked for it runs the same server as `countermand serve`, with a point in
its way at which it kills itself."""

import os
import random
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import trio

from engine.backend import open_backend
from engine.settings import EngineSettings
from tests.crash.points import POINTS, When
from tests.crash.seams import Countdown, Seams, open_tools
from web.auth import WebSettings
from web.control import ServerControl
from web.logs import configure_logs
from web.serve import ServerSettings, open_server


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is born with. `point` is where it dies, the `at`-th time that it is there; empty: not by itself.

    A point under load is armed by SIGUSR1.
    """

    data_dir: str
    host: str = "tcp://127.0.0.1:0"
    point: str = ""
    at: int = 1
    seed: int = 0
    engine: dict[str, float | int] = {}  # of EngineSettings
    allowed_tools: frozenset[str] = frozenset()
    environ: dict[str, str] = {}  # of the commands that its tools run


def live(life: Life, announce: Callable[[str], None]) -> int:
    """Be the server, until it is told to leave, or dies; the exit code. `announce` is told where it listens."""
    # A forked process has the random numbers of all its siblings.
    random.seed(life.seed)
    trio._core._run._r.seed(life.seed)
    configure_logs(level="warning")
    seams = Seams(Path(life.data_dir))
    point = POINTS.get(life.point)
    countdown = Countdown(life.at, is_armed=point is not None and point.when in {When.FIRST, When.STARTING})
    if point is not None:
        signal.signal(signal.SIGUSR1, lambda *_: countdown.arm())
        point.install(countdown, seams)
    is_dying = point is not None and point.when is When.LEAVING
    trio.run(_serve, life, seams, announce, countdown.arm if is_dying else bool)
    return os.EX_OK


async def _serve(life: Life, seams: Seams, announce: Callable[[str], None], on_leaving: Callable[[], object]) -> None:
    control = ServerControl()
    bounds = EngineSettings(data_dir=seams.data_dir, allowed_tools=life.allowed_tools)
    settings = ServerSettings(
        engine=msgspec.structs.replace(bounds, **life.engine),
        hosts=(life.host,),
        web=WebSettings(token_file=seams.data_dir / "tokens.json", open_loopback=True),
    )
    open_engine = partial(
        open_backend, environ=life.environ, wrap_store=seams.wrap_store, before_entry=seams.before_entry,
        tools=open_tools,
    )  # fmt: skip
    async with open_server(settings, control, handle_signals=True, open_engine=open_engine):
        announce(control.addresses[0])
        await control.wait_shutdown_requested()
        on_leaving()

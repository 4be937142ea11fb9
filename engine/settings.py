"""What an operator can set, with its defaults and units."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The engine's settings. Times are in seconds."""

    data_dir: Path | None = None  # None: everything in memory, for tests
    max_active_runs: int = 64  # of the whole server; who waits is served in turn, a session at a time (R14)
    queue_per_session: int = 100  # runs that wait (R16)
    queue_per_workspace: int = 1000
    default_timeout_s: float = 3600.0  # a run's deadline, from the moment it becomes active (R21)
    max_timeout_s: float = 86_400.0
    max_attempts: int = 3  # of a run whose policy is to be retried after a crash (R25)
    drain_s: float = 10.0  # how long active runs may go on after a signal (R24)
    settle_s: float = 5.0  # bound of the shielded write of an ending (R13, R23)
    unwind_s: float = 10.0  # how long a canceled agent may clean up before its run ends without it (R22)
    accept_s: float = 30.0  # bound of the shielded write of an acceptance (R05)
    flush_s: float = 0.033  # streamed text is coalesced this long (R30)
    reader_buffer: int = 512  # events kept for one reader; who falls further behind goes back to the log (R29)
    event_keep: Annotated[int, Meta(ge=1000)] = 100_000  # events of a workspace that can be read again (R28)
    event_keep_s: Annotated[float, Meta(ge=60)] = 7 * 86_400.0  # how long they can; then they are pruned
    create_hold_s: float = 30.0  # a client that created a workspace has this long to open its stream
    detach_grace_s: float = 10.0  # a client whose last stream dropped has this long to come back
    idle_timeout_s: float | None = None  # exit after this long with no workspace; None: never
    disabled_tools: frozenset[str] = frozenset()  # the names of built-in tools that the agent does not get
    # What needs no asking inside the workspace: `tool` or `tool:action` (R31).
    allowed_tools: frozenset[str] = frozenset()
    fetch_networks: tuple[str, ...] = ()  # that `fetch` and `download` may read beside the public one, as `10.1.0.0/16`
    max_prompt_bytes: int = 1 << 20
    max_attachment_bytes: int = 8 << 20

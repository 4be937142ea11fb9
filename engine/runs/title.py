"""Giving a session its title, beside its first turn."""

from collections.abc import Callable

import structlog
import trio
from msgspec import UNSET

from engine.agents.protocol import Title, Titler
from engine.errors import StoreError
from engine.events.log import EventLog
from engine.records.change import Change, UpdateSession
from engine.records.run import RunRecord
from engine.store.protocol import Store

TITLE_MAX = 50  # characters

logger = structlog.get_logger(__name__)


async def give_title(run: RunRecord, titler: Titler, store: Store, log: EventLog, now_us: Callable[[], int]) -> None:
    """Title the session of its first run, unless somebody renames it meanwhile. Never raises: a title is a courtesy."""
    await trio.lowlevel.checkpoint()
    try:
        session = await store.session(run.workspace_id, run.session_id)
        if session is None or session.parent_id is not None:
            return
        title = await find_title(run, titler)
        change = UpdateSession(
            session_id=run.session_id, at_us=now_us(), title=title.text or UNSET, add_cost=title.usage.cost,
            only_if_title=session.title,
        )  # fmt: skip
        await log.commit(Change(run.workspace_id, now_us(), (change,)))
    except StoreError as error:
        logger.warning("the session keeps its title", session_id=run.session_id, error=str(error))


async def find_title(run: RunRecord, titler: Titler) -> Title:
    """What the titler says, on one line; the first words of the prompt if it says nothing or fails."""
    await trio.lowlevel.checkpoint()
    title = Title("")
    try:
        title = await titler.title(run.prompt)
    except* Exception as group:  # a side task's guard: no failure of a title reaches the run
        logger.warning("no title was found", run_id=run.id, error=str(group.exceptions[0]))
    text = " ".join((title.text or run.prompt.text).split())[:TITLE_MAX].strip()
    return Title(text, title.usage)

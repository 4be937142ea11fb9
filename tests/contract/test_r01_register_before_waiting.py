"""R01: between the validation of a prompt and the registration of its run nothing else can happen."""

from typing import Any

import pytest
import trio
import trio.lowlevel
from trio.abc import Instrument

from engine.records.run import RunState
from engine.store.protocol import Store
from engine.workspace import Workspace
from tests.doubles.engine import open_watched
from tests.doubles.store import StoreDouble

PROMPTS: list[tuple[dict[str, Any], int]] = [
    ({}, 1),
    ({"run_id": "chosen"}, 2),
    ({"idempotency_key": "key"}, 2),
    ({"run_id": "chosen", "idempotency_key": "key"}, 3),
]


class ReadingStore(StoreDouble):
    """Counts what accepting a prompt looks up, and tells when all of it is done."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.left = 0
        self.is_done = trio.Event()

    def expect(self, reads: int) -> None:
        """So many look-ups belong to the next prompt."""
        self.left, self.is_done = reads, trio.Event()

    async def session(self, *args: Any) -> Any:
        return self._count(await super().session(*args))

    async def run(self, *args: Any) -> Any:
        return self._count(await super().run(*args))

    async def run_by_key(self, *args: Any) -> Any:
        return self._count(await super().run_by_key(*args))

    def _count(self, found: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            self.is_done.set()
        return found


class Watching(Instrument):
    """After each step of any task: whether the look-ups are done, and the run is registered."""

    def __init__(self, store: ReadingStore, workspace: Workspace) -> None:
        self.store = store
        self.workspace = workspace
        self.seen: set[tuple[bool, bool]] = set()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.seen.add((self.store.is_done.is_set(), bool(self.workspace.lanes.all_runs())))


@pytest.mark.parametrize(("policy", "reads"), PROMPTS)
async def test_r01_no_task_ever_sees_a_prompt_that_was_looked_up_and_is_not_registered(
    policy: dict[str, Any], reads: int, autojump_clock: object, tmp_path: object
) -> None:
    stores: list[ReadingStore] = []

    def wrap(store: Store) -> Store:
        stores.append(ReadingStore(store))
        return stores[0]

    async def hold(run: object) -> None:
        await trio.sleep(1)

    async with open_watched(path=str(tmp_path), wrap_store=wrap, before_entry=hold) as watched:
        stores[0].expect(reads)
        watching = Watching(stores[0], watched.workspace)
        trio.lowlevel.add_instrument(watching)
        await watched.send("hi", **policy)
        trio.lowlevel.remove_instrument(watching)
        assert (True, False) not in watching.seen
        assert {(False, False), (True, True)} <= watching.seen


@pytest.mark.parametrize(("policy", "reads"), PROMPTS)
async def test_r01_cancel_that_arrives_right_after_the_last_look_up_finds_the_run(
    policy: dict[str, Any], reads: int, autojump_clock: object, tmp_path: object
) -> None:
    stores: list[ReadingStore] = []

    def wrap(store: Store) -> Store:
        stores.append(ReadingStore(store))
        return stores[0]

    async with open_watched(path=str(tmp_path), wrap_store=wrap) as watched:
        for _ in range(5):
            session_id = (await watched.workspace.sessions.create("s")).id
            fresh = {name: f"{value}-{session_id}" for name, value in policy.items()}
            stores[0].expect(reads)
            named: list[str] = []
            accepted: list[Any] = []

            async def cancel(session_id: str = session_id, named: list[str] = named) -> None:
                await stores[0].is_done.wait()
                named.extend(await watched.workspace.cancel_session(session_id))

            async def send(out: list[Any] = accepted, fresh: Any = fresh, session_id: str = session_id) -> None:
                out.append(await watched.send("hi", session_id=session_id, **fresh))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel)
                nursery.start_soon(send)
            assert named == [accepted[0].id]
            assert (await watched.ended(accepted[0])).state is RunState.CANCELED

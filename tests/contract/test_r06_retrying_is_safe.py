"""R06: the same key with the same request is the same run, run once; with another request it is refused."""

from typing import Any

import pytest
import trio
import trio.testing

from engine.agents.protocol import Turn
from engine.backend import NewWorkspace, open_backend
from engine.errors import CountermandError, IdempotencyConflict, ServerStopping, StoreUnavailable, WorkspaceClosing
from engine.records.change import AcceptRun, Change
from engine.records.ids import RunId
from engine.records.run import IfBusy, Prompt, RunState
from engine.runs.acceptance import Accepted
from engine.settings import EngineSettings
from engine.store.sqlite import open_sqlite_store
from tests.doubles.engine import ScriptedAgent, Watched, open_watched
from tests.doubles.gate import Gate
from tests.doubles.holding_store import HoldingStore, accepts
from tests.doubles.stages import CANCELABLE, HELD, At, open_staged
from tests.doubles.store import FailingStore, StoreDouble

KEYS: list[dict[str, Any]] = [
    {"run_id": RunId("chosen")},
    {"idempotency_key": "key"},
    {"run_id": RunId("chosen"), "idempotency_key": "key"},
]
OTHERS: list[dict[str, Any]] = [
    {"text": "something else"},
    {"if_busy": IfBusy.INTERRUPT},
    {"timeout_s": 5.0},
    {"model": "offline/helper"},
]


async def accept(watched: Watched, **given: Any) -> Accepted:
    """Accept a prompt as a client sends it."""
    return await watched.workspace.accept(Prompt(**{"session_id": watched.session_id, "text": "hi", **given}))


@pytest.mark.parametrize("key", KEYS)
async def test_r06_repeated_request_is_answered_with_the_same_run_which_runs_once(
    key: dict[str, Any], watched: Watched, autojump_clock: object
) -> None:
    first = await accept(watched, **key)
    again = await accept(watched, **key)
    assert (first.replayed, again.replayed) == (False, True)
    ended = await watched.ended(first.run)
    later = await accept(watched, **key)
    assert (later.run, later.replayed) == (ended, True)
    assert again.run.id == first.run.id
    assert len(watched.agent.turns) == 1


@pytest.mark.parametrize("at", CANCELABLE)
async def test_r06_repeated_request_finds_its_run_while_it_is(at: At, autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(at, tmp_path) as staged:
        policy = "steer" if at is At.STEERED else "enqueue"
        again = await staged.under_hold(lambda: staged.watched.send("held", run_id=HELD, if_busy=policy))
        assert again.id == HELD
        with pytest.raises(IdempotencyConflict):
            await staged.watched.send("other", run_id=HELD, if_busy=policy)
        staged.release()
        await staged.ended()
        assert staged.began.count(HELD) == (0 if at is At.STEERED else 1)


@pytest.mark.parametrize("key", KEYS)
async def test_r06_requests_at_the_same_moment_are_one_run(
    key: dict[str, Any], autojump_clock: object, tmp_path: object
) -> None:
    stores: list[HoldingStore] = []

    def wrap(store: Any) -> HoldingStore:
        stores.append(HoldingStore(store))
        return stores[0]

    async with open_watched(path=str(tmp_path), wrap_store=wrap) as watched:
        answers: list[Accepted] = []

        async def send() -> None:
            # Refused, if it were taken for a prompt that meets a busy session.
            answers.append(await accept(watched, if_busy=IfBusy.REJECT, **key))

        gate = stores[0].hold(lambda write: isinstance(write, AcceptRun))
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(send)
            await gate.reached()
            nursery.start_soon(send)
            gate.open()
        assert {answer.run.id for answer in answers} == {answers[0].run.id}
        assert sorted(answer.replayed for answer in answers) == [False, True, True, True, True, True]
        await watched.ended(answers[0].run)
        assert len(watched.agent.turns) == 1
        assert len(await watched.workspace.runs()) == 1


@pytest.mark.parametrize("key", [{"run_id": RunId("chosen")}, {"idempotency_key": "key"}], ids=["run id", "key"])
async def test_r06_request_whose_twin_came_and_went_while_it_was_being_looked_up_finds_it(
    key: dict[str, Any], autojump_clock: object, tmp_path: object
) -> None:
    found = Gate()

    class Slow(StoreDouble):
        async def run(self, *args: Any) -> Any:
            return await self._first(await super().run(*args))

        async def run_by_key(self, *args: Any) -> Any:
            return await self._first(await super().run_by_key(*args))

        async def _first(self, stored: Any) -> Any:
            if not found.arrivals:
                await found.pass_through()
            return stored

    async with open_watched(path=str(tmp_path), wrap_store=Slow) as watched:
        answers: list[Accepted] = []

        async def send() -> None:
            answers.append(await accept(watched, **key))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await found.reached()
            twin = await accept(watched, **key)
            ended = await watched.ended(twin.run)
            found.open()
        assert [(answer.run, answer.replayed) for answer in answers] == [(ended, True)]
        assert len(watched.agent.turns) == 1


@pytest.mark.parametrize("reason", [ServerStopping(), WorkspaceClosing("w")])
@pytest.mark.parametrize("key", KEYS)
async def test_r06_repeated_request_is_answered_where_a_new_one_is_refused(
    key: dict[str, Any], reason: CountermandError, watched: Watched, autojump_clock: object
) -> None:
    first = await accept(watched, **key)
    watched.workspace.refuse(reason)
    assert (await accept(watched, **key)).run.id == first.run.id
    with pytest.raises(type(reason)):
        await accept(watched)
    with pytest.raises(IdempotencyConflict):
        await accept(watched, text="something else", **key)


async def test_r06_repeated_request_waits_for_the_first_although_a_new_one_is_refused(
    autojump_clock: object, tmp_path: object
) -> None:
    stores: list[HoldingStore] = []

    def wrap(store: Any) -> HoldingStore:
        stores.append(HoldingStore(store))
        return stores[0]

    async with open_watched(path=str(tmp_path), wrap_store=wrap) as watched:
        gate = stores[0].hold(accepts("chosen"))
        answers: list[Accepted] = []

        async def send() -> None:
            answers.append(await accept(watched, run_id=RunId("chosen")))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await gate.reached()
            watched.workspace.refuse(ServerStopping())
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            gate.open()
        assert [answer.run.id for answer in answers] == ["chosen", "chosen"]


@pytest.mark.parametrize("key", KEYS)
async def test_r06_different_requests_under_one_key_at_the_same_moment_are_one_run_and_refusals(
    key: dict[str, Any], watched: Watched, autojump_clock: object
) -> None:
    answers: list[Any] = []

    async def send(text: str) -> None:
        try:
            answers.append(await accept(watched, text=text, **key))
        except IdempotencyConflict as error:
            answers.append(error)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(send, f"{number}")
    accepted = [answer for answer in answers if isinstance(answer, Accepted)]
    assert [answer.replayed for answer in accepted] == [False]
    await watched.ended(accepted[0].run)
    assert len(watched.agent.turns) == 1


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("key", KEYS)
async def test_r06_same_key_with_another_request_is_refused_by_the_name_of_the_key(
    key: dict[str, Any], other: dict[str, Any], ended: bool, watched: Watched, autojump_clock: object
) -> None:
    first = await accept(watched, **key)
    if ended:
        await watched.ended(first.run)
    before = len(await watched.workspace.runs())
    with pytest.raises(IdempotencyConflict) as refused:
        await accept(watched, **key, **other)
    assert refused.value.field == ("run_id" if "run_id" in key else "Idempotency-Key")
    assert refused.value.key in key.values()
    assert len(await watched.workspace.runs()) == before


async def test_r06_key_that_belongs_to_a_run_of_another_id_is_refused(watched: Watched, autojump_clock: object) -> None:
    await accept(watched, run_id=RunId("one"), idempotency_key="key")
    with pytest.raises(IdempotencyConflict):
        await accept(watched, run_id=RunId("two"), idempotency_key="key")
    with pytest.raises(IdempotencyConflict):
        await accept(watched, idempotency_key="key")
    other = await watched.workspace.sessions.create("other")
    with pytest.raises(IdempotencyConflict):
        await accept(watched, run_id=RunId("one"), idempotency_key="key", session_id=other.id)


async def test_r06_repeated_request_that_would_be_refused_as_a_new_one_finds_its_run(
    autojump_clock: object, tmp_path: object
) -> None:
    settings = EngineSettings(data_dir=None, queue_per_session=1, queue_per_workspace=1)
    async with open_watched(path=str(tmp_path), settings=settings) as watched:

        async def respond(turn: Turn) -> None:
            await trio.sleep(1)

        watched.agent.respond_with = respond
        busy = await accept(watched, run_id=RunId("active"), if_busy=IfBusy.REJECT)
        await trio.sleep(0.1)
        queued = await accept(watched, run_id=RunId("queued"))
        for first, policy in ((busy, IfBusy.REJECT), (queued, IfBusy.ENQUEUE)):
            assert (await accept(watched, run_id=first.run.id, if_busy=policy)).replayed


async def test_r06_repeated_interrupt_interrupts_once(autojump_clock: object, tmp_path: object) -> None:
    async with open_staged(At.AGENT, tmp_path) as staged:
        await staged.watched.send("now", run_id="now", if_busy="interrupt")
        await staged.watched.send("behind", run_id="behind")
        await staged.watched.send("now", run_id="now", if_busy="interrupt")
        assert (await staged.ended()).state is RunState.CANCELED
        assert (await staged.ended(RunId("now"))).state is RunState.COMPLETED
        assert (await staged.ended(RunId("behind"))).state is RunState.COMPLETED


async def test_r06_retry_of_a_request_that_was_refused_is_a_new_one(autojump_clock: object, tmp_path: object) -> None:
    failures = 1

    def fails(number: int, change: Change) -> bool:
        nonlocal failures
        is_first = any(accepts("run")(write) for write in change.writes) and failures > 0
        failures -= is_first
        return is_first

    async with open_watched(path=str(tmp_path), wrap_store=lambda store: FailingStore(store, fails)) as watched:
        with pytest.raises(StoreUnavailable):
            await accept(watched, run_id=RunId("run"), idempotency_key="key")
        again = await accept(watched, run_id=RunId("run"), idempotency_key="key")
        assert not again.replayed
        assert (await watched.ended(again.run)).state is RunState.COMPLETED


@pytest.mark.parametrize("key", KEYS)
async def test_r06_repeated_request_finds_its_run_after_a_restart(
    key: dict[str, Any], autojump_clock: object, tmp_path: object
) -> None:
    async with open_sqlite_store(None) as disk:
        async with open_watched(path=str(tmp_path), wrap_store=lambda _: disk) as watched:
            first = await accept(watched, **key)
            ended = await watched.ended(first.run)
        agent, settings = ScriptedAgent(), EngineSettings(data_dir=None)
        async with open_backend(settings, environ={}, agent=agent, wrap_store=lambda _: disk) as backend:
            workspace = await backend.create_workspace(NewWorkspace(path=str(tmp_path)))
            again = Watched(backend, workspace, watched.session_id, agent)
            answer = await accept(again, **key)
            assert (answer.run, answer.replayed) == (ended, True)
            with pytest.raises(IdempotencyConflict):
                await accept(again, text="something else", **key)
            assert agent.turns == []

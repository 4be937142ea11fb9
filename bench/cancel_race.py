"""Is any cancel lost when it comes 0 to 20 ms after its prompt was accepted?

Pairs of an accepted prompt and a cancel, over real HTTP, against a real server in a process of its own whose model is a
slow one on a local socket. First every pair has a session to itself, then all share a few; last, again with a session
each, the time between begins only when the model has been called. Three cancels of four are of the session, the fourth
of the run; behind some of them comes a prompt that nobody means to cancel.

A run that a cancel named must end canceled, with one terminal event and its turn stored; a run that none named must be
completed; and the model's connection must be closed whenever a run that had called it was canceled.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it can be run as a script, too

from bench import harness
from bench.model import SLOW, Model, open_model
from tests.doubles.live_server import Answer, Connection, LiveServer, open_live_server

KEPT_EVERY = 8  # pairs, with a prompt behind that nobody means to cancel
BY_RUN_EVERY = 4  # pairs, with a cancel of the run rather than of its session
HUNG_S = 60.0  # a run that has not ended by then never will
PAGE = 200


@dataclass(frozen=True)
class Mode:
    """How the pairs are run."""

    label: str
    pairs: int
    sessions: int
    while_speaking: bool = False


@dataclass
class Prompt:
    """A prompt and what became of it, as seen from outside. Times are Trio's."""

    run_id: str
    session_id: str
    text: str
    sent_at: float
    named_by: list["Cancel"] = field(default_factory=list)
    ended_at: list[float] = field(default_factory=list)  # when each terminal event was seen


@dataclass(eq=False)
class Cancel:
    """A cancel and its answer."""

    sent_at: float
    answered_at: float = 0.0
    named: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """A prompt to be, and how long after its answer its cancel is sent."""

    number: int
    session_id: str
    pause_s: float


@dataclass
class Race:
    """One mode: its prompts, its cancels, and what the store and the log say afterwards."""

    mode: Mode
    model: Model
    w: str = ""
    sessions: list[str] = field(default_factory=list)
    prompts: dict[str, Prompt] = field(default_factory=dict)
    cancels: list[Cancel] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    terminal_events: Counter[str] = field(default_factory=Counter)
    misread: list[str] = field(default_factory=list)  # what an answer or a stored turn should not have been
    bell: harness.Bell = field(default_factory=harness.Bell)

    def ended(self, run_id: str) -> None:
        """A terminal event was seen."""
        if run_id in self.prompts:
            self.prompts[run_id].ended_at.append(trio.current_time())
        self.bell.ring()

    @property
    def is_over(self) -> bool:
        """Whether every run has its terminal event."""
        return all(prompt.ended_at for prompt in self.prompts.values())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--pairs", type=int, default=2000, help="of a prompt and a cancel, in each mode")
    parser.add_argument(
        "--spread-ms", type=float, default=20.0, help="the most between a prompt's answer and its cancel"
    )
    parser.add_argument("--sessions", type=int, default=50, help="that all pairs of the second mode share")
    parser.add_argument("--speaking", type=int, default=200, help="pairs whose cancel waits for the model to be called")
    parser.add_argument("--clients", type=int, default=4, help="at a time, each with a connection of its own")
    parser.add_argument("--seed", type=int, default=1, help="of the times between")


async def measure(options: argparse.Namespace, report: harness.Report) -> None:
    """Run every mode against one server."""
    modes = (
        Mode("one each", options.pairs, options.pairs),
        Mode("shared", options.pairs, options.sessions),
        Mode("speaking", options.speaking, options.speaking, while_speaking=True),
    )
    counts = report.table("What became of them", "mode", "sessions", "pairs", "prompts", "named", "canceled",
                          "completed", "called the model", "connections opened", "closed")  # fmt: skip
    times = report.table("From sending a cancel, in ms", "mode", "to", "times", "p50", "p99", "max")
    with tempfile.TemporaryDirectory() as directory:
        arguments = ("--no-token", "--log-level", "warning")
        async with (
            open_model() as model,
            open_live_server(Path(directory, "data"), environ=model.environ, arguments=arguments) as server,
        ):
            for mode in modes:
                opened, closed, model.calls = model.opened, model.closed, []
                race = Race(mode, model)
                await run_race(server, race, Path(directory, mode.label), options)
                await model.wait_closed(HUNG_S)
                judge(report, race)
                opened, closed = model.opened - opened, model.closed - closed
                report.check(
                    f"{mode.label}: model connections opened are closed", opened == closed, f"{opened}, {closed}"
                )
                called = {call.prompt for call in model.calls if not call.is_title}
                counts.add(
                    mode.label, mode.sessions, mode.pairs, len(race.prompts),
                    sum(bool(prompt.named_by) for prompt in race.prompts.values()),
                    *(sum(state == wanted for state in race.states.values()) for wanted in ("canceled", "completed")),
                    sum(prompt.text in called for prompt in race.prompts.values()), opened, closed,
                )  # fmt: skip
                for what, values in latencies(race).items():
                    times.add(mode.label, what, len(values), *harness.spread(values))
            report.check("the server has nothing to complain of", not server.log, server.log[:500])


async def run_race(server: LiveServer, race: Race, project: Path, options: argparse.Namespace) -> None:
    """All pairs of a mode, until every run has ended, and what is stored of them."""
    mode = race.mode
    await trio.Path(project).mkdir()
    random_ = random.Random(options.seed)
    async with server.connect() as connection:
        race.w = "/v1/workspaces/" + (await ask(connection, "POST", "/v1/workspaces", {"path": str(project)}))["id"]
        for _ in range(mode.sessions):
            race.sessions.append((await ask(connection, "POST", f"{race.w}/sessions", {"title": "race"}))["id"])
        # Clients work on one session at a time, if they share: their prompts and their cancels meet.
        step = 1 if mode.sessions == mode.pairs else options.clients
        pairs = iter(
            [
                Pair(at, race.sessions[at // step % mode.sessions], random_.uniform(0, options.spread_ms / 1000))
                for at in range(mode.pairs)
            ]
        )
        async with watching(server, race):
            async with trio.open_nursery() as nursery:
                for _ in range(options.clients):
                    nursery.start_soon(pair_after_pair, server, race, pairs)
            await race.bell.wait_until(lambda: race.is_over, HUNG_S)
    # The one from before may be closed by now: nothing was asked on it for longer than a server keeps an idle one.
    async with server.connect() as connection:
        await read_back(connection, race)


async def pair_after_pair(server: LiveServer, race: Race, pairs: Iterator[Pair]) -> None:
    """One client: takes the next pair until there is none."""
    async with server.connect() as connection:
        for pair in pairs:
            text = f"{SLOW} {race.mode.label} {pair.number}"
            run_id = await send(connection, race, pair.session_id, text)
            if race.mode.while_speaking:
                await race.model.wait_called(text, HUNG_S)
            await trio.sleep(pair.pause_s)
            await cancel(connection, race, pair.session_id, None if pair.number % BY_RUN_EVERY else run_id)
            if pair.number % KEPT_EVERY == 0:
                await send(connection, race, pair.session_id, f"kept {race.mode.label} {pair.number}")
        await trio.lowlevel.checkpoint()


async def send(connection: Connection, race: Race, session_id: str, text: str) -> str:
    """Send a prompt and return once it was answered."""
    run_id = text.replace(" ", "-")
    race.prompts[run_id] = Prompt(run_id, session_id, text, trio.current_time())
    body = {"session_id": session_id, "prompt": text, "run_id": run_id}
    answer = await connection.request("POST", f"{race.w}/agent", body)
    if answer.status != 202 or answer.json()["run_id"] != run_id:
        race.misread.append(f"prompt {run_id}: {answer}")
    return run_id


async def cancel(connection: Connection, race: Race, session_id: str, run_id: str | None) -> None:
    """Cancel the run, or everything in the session."""
    sent = Cancel(trio.current_time())
    race.cancels.append(sent)
    path = f"runs/{run_id}/cancel" if run_id else f"agent/sessions/{session_id}/cancel"
    answer = await connection.request("POST", f"{race.w}/{path}")
    sent.answered_at = trio.current_time()
    if answer.status != 200:
        race.misread.append(f"cancel {path}: {answer}")
        return
    sent.named = tuple(answer.json()["canceled"])
    if run_id and set(sent.named) - {run_id}:
        race.misread.append(f"the cancel of {run_id} alone names {sent.named}")
    for name in sent.named:
        race.prompts[name].named_by.append(sent)


@asynccontextmanager
async def watching(server: LiveServer, race: Race) -> AsyncIterator[None]:
    """Note when each terminal event arrives on a stream of the workspace."""
    async with server.connect() as connection, trio.open_nursery() as nursery:
        await connection.send("GET", f"{race.w}/events?deltas=1")
        nursery.start_soon(note_endings, await connection.answer(), race)
        yield
        nursery.cancel_scope.cancel()


async def note_endings(answer: Answer, race: Race) -> None:
    """Read a stream to its end."""
    rest = b""
    while data := await answer.receive():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b'data: {"type":"run_complete"'):
                race.ended(msgspec.json.decode(line[6:])["payload"]["payload"]["run_id"])
    await trio.lowlevel.checkpoint()


async def read_back(connection: Connection, race: Race) -> None:
    """What is stored: the state of every run, every terminal event of the log, every turn."""
    before = None
    while True:
        page = await ask(connection, "GET", f"{race.w}/runs?limit={PAGE}" + (f"&before={before}" if before else ""))
        race.states |= {run["id"]: run["state"] for run in page["runs"]}
        race.begun |= {run["id"] for run in page["runs"] if run["started_at"]}
        before = page["next"]
        if before is None:
            break
    texts = {prompt.text: prompt.run_id for prompt in race.prompts.values()}
    for session_id in race.sessions:
        messages = await ask(connection, "GET", f"{race.w}/sessions/{session_id}/messages")
        race.misread += misread_turns(race, messages, texts, session_id)
    await count_terminal_events(connection, race)


async def count_terminal_events(connection: Connection, race: Race) -> None:
    """Read the log from its beginning to the number that is the latest now; leaves the connection unusable."""
    await connection.send("GET", f"{race.w}/events?cursor=earliest&deltas=1")
    answer = await connection.answer()
    rest, expected, missing = b"", count(1), set(race.states)
    while missing and (data := await answer.receive()):
        *frames, rest = (rest + data).split(b"\n\n")
        for frame in frames:
            number, _, event = frame.partition(b"\n")
            if not number.startswith(b"id: ") or not event:
                continue
            if int(number[4:]) != (wanted := next(expected)):
                race.misread.append(f"the log has {int(number[4:])} where {wanted} was due")
                expected = count(int(number[4:]) + 1)
            if event.startswith(b'data: {"type":"run_complete"'):
                run_id = msgspec.json.decode(event[6:])["payload"]["payload"]["run_id"]
                race.terminal_events[run_id] += 1
                missing.discard(run_id)


def misread_turns(race: Race, messages: list[dict[str, Any]], texts: dict[str, str], session_id: str) -> Iterator[str]:
    """What is wrong with the stored turns of a session: each must be a prompt, then an answer that ended as its run."""
    expected = Counter(prompt.text for prompt in race.prompts.values() if prompt.session_id == session_id)
    if len(messages) != 2 * expected.total():
        yield f"session {session_id} has {len(messages)} messages for {expected.total()} prompts"
    for user, answer in zip(messages[::2], messages[1::2], strict=False):
        said = "".join(part["data"]["text"] for part in user["parts"] if part["type"] == "text")
        finish = next((part["data"]["reason"] for part in answer["parts"] if part["type"] == "finish"), None)
        expected[said] -= 1
        if (user["role"], answer["role"]) != ("user", "assistant") or said not in texts:
            yield f"session {session_id}: {user['role']} {said!r} is followed by {answer['role']}"
        elif finish != {"canceled": "canceled", "completed": "end_turn"}.get(race.states.get(texts[said], "")):
            yield f"run {texts[said]} is {race.states.get(texts[said])}, and its answer finished {finish}"
    for text, left in expected.items():
        if left:
            yield f"session {session_id}: {text!r} is stored {1 - left} times"


def judge(report: harness.Report, race: Race) -> None:
    """Everything that must hold of a mode."""
    label, calls = race.mode.label, race.model.calls
    named = {run_id for run_id, prompt in race.prompts.items() if prompt.named_by}
    meant = {run_id for run_id, prompt in race.prompts.items() if prompt.text.startswith(SLOW)}
    state = race.states.get
    early = [
        f"{prompt.run_id} was sent after the answer"
        for prompt in race.prompts.values()
        for cancel in prompt.named_by
        if prompt.sent_at > cancel.answered_at
    ]
    untold = {prompt.text for prompt in race.prompts.values() if prompt.run_id not in race.begun}
    report.check_none(f"{label}: answers and stored turns that are not as they must be", race.misread)
    report.check_none(f"{label}: lost (its cancel named nothing of it)", sorted(meant - named))
    report.check_none(f"{label}: named and not canceled", sorted(each for each in named if state(each) != "canceled"))
    report.check_none(f"{label}: canceled and not named", sorted(
        each for each in race.prompts if each not in named and state(each) != "completed"
    ))  # fmt: skip
    report.check_none(f"{label}: named by a cancel that was answered before", early)
    report.check_none(f"{label}: hung", sorted(run_id for run_id, each in race.prompts.items() if not each.ended_at))
    report.check_none(f"{label}: not exactly one terminal event", sorted(
        run_id for run_id, each in race.prompts.items() if len(each.ended_at) != 1 or race.terminal_events[run_id] != 1
    ))  # fmt: skip
    report.check_none(f"{label}: a model was called for a run that never began", sorted(
        call.prompt for call in calls if not call.is_title and call.prompt in untold
    ))  # fmt: skip
    report.check_none(f"{label}: a later run was shown what was canceled before it began", sorted(
        text for call in calls if not call.is_title for text in untold.intersection(call.texts)
    ))  # fmt: skip
    report.check_none(f"{label}: the model's connection stayed open", [each for each in calls if not each.closed_at])


def latencies(race: Race) -> dict[str, list[float]]:
    """From sending a cancel to its answer, to the terminal event of each run it was first to name, and to the end of
    that run's call of the model."""
    first = {
        prompt.text: (min(each.sent_at for each in prompt.named_by), prompt)
        for prompt in race.prompts.values()
        if prompt.named_by
    }
    ended = [prompt.ended_at[0] - sent for sent, prompt in first.values() if prompt.ended_at]
    closed = [
        call.closed_at - first[call.prompt][0]
        for call in race.model.calls
        if call.prompt in first and not call.is_title and call.closed_at
    ]
    answered = [each.answered_at - each.sent_at for each in race.cancels]
    return {"its answer": answered, "the terminal event": ended, "the model's end": closed}


async def ask(connection: Connection, method: str, target: str, body: object = None) -> Any:
    """A request that must be answered well; its answer's body."""
    answer = await connection.request(method, target, body)
    if answer.status != 200:
        raise RuntimeError(f"{method} {target}: {answer}")
    return answer.json()


if __name__ == "__main__":
    harness.run_script(__name__)

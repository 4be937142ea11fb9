"""Endings: every accepted run has one, the last of it, the same for everybody who asks (R14, R18-R21, R25)."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from tests.machine.promises.book import TERMINAL, Book, Life
from tests.machine.world import UNWIND_S

SLACK_S = 0.001
FINISHES = {"completed": "end_turn", "canceled": "canceled", "failed": "error", "interrupted": "error"}


def accepted_runs_have_one_ending(book: Book) -> Iterator[str]:
    """R18, R19, R25: each run that a client was told of has one terminal event, the last of its events."""
    for sent in book.ledger.sent:
        for call in sent.calls:
            if call.status == 202 and call.told["run_id"] not in book.lives:
                yield f"{sent} was accepted as {call.told['run_id']}, and nothing is there (R25)"
    for life in book.lives.values():
        kinds = [event["type"] for event in life.events]
        if kinds.count("run_complete") != 1:
            yield f"{life} has {kinds.count('run_complete')} terminal events (R18)"
        elif kinds[-1] != "run_complete":
            yield f"{life}: its last event is {kinds[-1]} (R19)"


def everybody_is_told_the_same_ending(book: Book) -> Iterator[str]:
    """R18, R19: the run, its terminal event and its last message agree; and so did every earlier answer."""
    for life in book.lives.values():
        run = book.runs.get(life.id)
        if run is None:
            if life.session_id not in book.deleted and not is_being_deleted(book, life):
                yield f"{life} is in the log, and is not listed (R18)"
            continue
        told = (life.ending.get("state"), life.ending.get("message_id"), life.ending.get("steered_into", ""))
        if told != (run["state"], run["message_id"] or "", run["steered_into"] or ""):
            yield f"{life} is {run}, and its terminal event tells {life.ending} (R19)"
        if run["ended_at"] is None:
            yield f"{life} has no end (R22)"
        yield from turn_agrees(book, life)
    for call in book.ledger.of("run", "runs", "account"):
        for run in runs_told(call):
            found = book.lives[run["id"]].state if run["id"] in book.lives else "unknown"
            if run["state"] in TERMINAL and found != run["state"]:
                yield f"{run['id']} was told to be {run['state']}, and is {found} (R18)"


def is_being_deleted(book: Book, life: Life) -> bool:
    """Whether somebody wanted to delete the session, and does not know what became of it."""
    return any(call.target == life.session_id for call in book.ledger.of("delete session"))


def runs_told(call: Any) -> list[dict[str, Any]]:
    """The runs that an answer tells of."""
    if call.status != 200 or not isinstance(call.told, dict):
        return []
    return list(call.told["runs"]) if "runs" in call.told else [call.told] if "state" in call.told else []


def turn_agrees(book: Book, life: Life) -> Iterator[str]:
    """R09, R10, R19: the messages of the run say what its ending says."""
    turn = [each for each in book.account.messages.get(life.session_id, ()) if each.get("run_id") == life.id]
    if life.host:
        if [each["role"] for each in turn] != ["user"] or said(turn[0]) != life.text:
            yield f"{life} was steered, and its turn is {turn} (R15)"
        return
    last = turn[-1] if turn else None
    if last is None or turn[0]["role"] != "user" or said(turn[0]) != life.text:
        yield f"{life}: its turn is not stored (R09)"
    elif last["role"] == "assistant":
        if last["id"] != life.ending.get("message_id") or said(last) != life.ending.get("text", ""):
            yield f"{life}: its last message is {last}, and its terminal event tells {life.ending} (R19)"
        if finish(last) != FINISHES.get(life.state):
            yield f"{life} ended {life.state}, and its last message {finish(last)} (R10)"


def said(message: dict[str, Any]) -> str:
    """What a message says."""
    return "".join(part["data"]["text"] for part in message["parts"] if part["type"] == "text")


def finish(message: dict[str, Any]) -> str:
    """How a message ended."""
    return next((part["data"]["reason"] for part in message["parts"] if part["type"] == "finish"), "")


def runs_begin_in_order(book: Book) -> Iterator[str]:
    """R14: the runs of a session begin in the order in which they were accepted, one at a time."""
    for lives in book.by_session.values():
        turns = [(life.begun, life) for life in lives if life.begun is not None]
        turns.sort(key=lambda turn: turn[0].moment)
        begun = [life for _, life in turns]
        if [life.number for life in begun] != sorted(life.number for life in begun):
            yield f"{begun[0].session_id} ran out of order: {list(map(str, begun))} (R14)"
        for (first, one), (second, other) in pairwise(turns):
            if one.ended_moment > second.moment and first.server == second.server:
                yield f"{other} began beside {one} (R14)"


def interrupted_by_the_end_of_a_server(book: Book) -> Iterator[str]:
    """R25: a run ends interrupted only if its server was killed under it; and fails only by its model or its time."""
    for life in book.lives.values():
        if life.state == "interrupted" and not book.ledger.kills:
            yield f"{life} ended interrupted, and no server was killed (R25)"
        words = {word.partition(":")[0] for word in life.text.split()[1:]}
        error = life.run["error"] or (book.runs.get(life.id) or {}).get("error")
        if life.state == "failed" and error is not None and error["type"] == "internal":
            yield f"{life} met an error of the server's own: {error} (R20)"
        if life.state == "failed" and not life.host and not words & {"fail", "bug", "hold"} and not deadline(life):
            yield f"{life} failed, and nothing made it (R20)"


def deadline(life: Life) -> float | None:
    """Its seconds, if it was given any."""
    return life.sent.timeout_s if life.sent is not None else None


def deadlines_are_kept(book: Book) -> Iterator[str]:
    """R21: no run goes on for longer than it was given."""
    for life in book.lives.values():
        limit = deadline(life)
        if limit is None or life.begun is None or life.ended is None or life.begun.server != life.ended.server:
            continue
        if (took := life.ended.at - life.begun.at) > limit + UNWIND_S + SLACK_S:
            yield f"{life} ended after {took:.3f} s; it had {limit} s (R21)"


PROMISES: tuple[Callable[[Book], Iterator[str]], ...] = (
    accepted_runs_have_one_ending,
    everybody_is_told_the_same_ending,
    runs_begin_in_order,
    interrupted_by_the_end_of_a_server,
    deadlines_are_kept,
)

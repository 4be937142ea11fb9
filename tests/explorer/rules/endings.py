"""Endings: every accepted run has one, and it is the one that its agent, its deadline or a crash made (R14-R25)."""

from collections.abc import Callable, Iterator

from engine.records.event import RunChanged, RunCompleted
from engine.records.run import IfBusy, OnCrash, RunState
from tests.explorer.rules.book import Book
from tests.explorer.world import UNWIND_S

SLACK_S = 0.001
FAILING = frozenset({"fail", "bug", "leave", "garbage"})
MAX_ATTEMPTS = 3
CALLS = frozenset({"call", "reject", "half", "change", "question", "job", "look", "peek", "agents"})


def accepted_runs_end(book: Book) -> Iterator[str]:
    """R18, R25: each run that a caller was told of has its ending."""
    for asked in book.ledger.asked:
        if asked.run is not None and (asked.run.id not in book.lives or book.lives[asked.run.id].ending is None):
            yield f"{asked.run.id} was accepted, and never ended (R18, R25)"


def one_run_at_a_time(book: Book) -> Iterator[str]:
    """R14: at most one run of a session is active. Only a store in trouble may delay an ending behind the next."""
    if book.has_trouble:
        return
    active: dict[str, str] = {}
    for entry in book.ledger.committed:
        body = entry.event.body
        if type(body) is RunCompleted and active.get(body.session_id) == body.run_id:
            del active[body.session_id]
        if type(body) is RunChanged and body.run.steered_into is None:
            run = body.run
            if run.state is RunState.ACTIVE:
                if active.setdefault(run.session_id, run.id) != run.id:
                    yield f"{run.id} became active beside {active[run.session_id]} (R14)"
            elif run.state is RunState.QUEUED and active.get(run.session_id) == run.id:
                del active[run.session_id]  # it begins again


def steered_runs_wanted_it(book: Book) -> Iterator[str]:
    """R15: only a prompt that says so is steered."""
    for life in book.lives.values():
        if life.record.steered_into is not None and life.record.prompt.if_busy is not IfBusy.STEER:
            yield f"{life.id} was steered into {life.record.steered_into}, and did not ask for it (R15)"


def interrupted_by_a_crash(book: Book) -> Iterator[str]:
    """R25: a run ends interrupted only if its server ended under it; and it is tried as often as its policy says."""
    for life in book.lives.values():
        record = life.record
        is_same = life.begun is not None and life.ended is not None and life.begun.server == life.ended.server
        if life.state is RunState.INTERRUPTED and is_same and not book.has_bug:
            yield f"{life.id} ended interrupted by the server that began it (R25)"
        most = MAX_ATTEMPTS if record.prompt.on_crash is OnCrash.RETRY else 1
        if record.attempt > most or life.answered > record.attempt:
            yield f"{life.id} was answered {life.answered} times in {record.attempt} of {most} attempts (R06, R25)"


def deadlines_are_kept(book: Book) -> Iterator[str]:
    """R21: a run that timed out had its time; and no run goes on for longer."""
    for life in book.lives.values():
        if life.begun is None or life.ended is None or life.begun.server != life.ended.server or book.has_trouble:
            continue
        took, limit = life.ended.at - life.begun.at, life.record.prompt.timeout_s
        has_timed_out = life.record.error is not None and life.record.error.type == "timeout"
        if has_timed_out and (limit is None or took < limit - SLACK_S):
            yield f"{life.id} timed out after {took:.3f} s; it had {limit} s (R21)"
        if limit is not None and took > limit + UNWIND_S + SLACK_S:
            yield f"{life.id} ended after {took:.3f} s; it had {limit} s (R21)"


def failed_for_a_reason(book: Book) -> Iterator[str]:
    """R20: a run fails by its agent, its deadline or the store, and never by an error of our own."""
    for life in book.lives.values():
        error = life.record.error
        if error is None:
            continue
        if error.type == "internal":
            yield f"{life.id} met an error of the server's own (R20)"
        words = {word.partition(":")[0] for word in book.script(life)}
        is_known = error.type in ("timeout", "interrupted") or words & FAILING or book.is_stubborn(life)
        host = book.lives.get(life.record.steered_into or "")
        if not (is_known or book.has_trouble or (host is not None and host.record.error == error)):
            yield f"{life.id} failed, and nothing made it: {error} (R20)"


def completed_runs_said_it(book: Book) -> Iterator[str]:
    """R19: the terminal event of a completed run tells the words that its agent said last."""
    for life in book.lives.values():
        if life.ending is None or life.state is not RunState.COMPLETED or life.record.steered_into is not None:
            continue
        script = book.script(life)
        if {word.partition(":")[0] for word in script} & FAILING:
            yield f"{life.id} completed, and its agent failed (R20)"
        elif life.ending.text != last_words(script):
            yield f"{life.id} ended with {life.ending.text!r}, and its agent said {last_words(script)!r} (R19)"


def last_words(script: tuple[str, ...]) -> str:
    """What an agent says in its last message."""
    text, has_calls = "", False
    for word in script:
        name, _, number = word.partition(":")
        if name == "say":
            text += "word " * max(int(number or 0), 1)
        elif name == "further" or (name == "reset" and not has_calls):
            text, has_calls = "", False
        has_calls |= name in CALLS
    return text


RULES: tuple[Callable[[Book], Iterator[str]], ...] = (
    accepted_runs_end,
    one_run_at_a_time,
    steered_runs_wanted_it,
    interrupted_by_a_crash,
    deadlines_are_kept,
    failed_for_a_reason,
    completed_runs_said_it,
)

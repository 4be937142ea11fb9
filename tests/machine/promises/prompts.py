"""Prompts: what is sent again is the same, what is refused leaves no trace and is refused for a reason (R02-R06)."""

from collections import Counter
from collections.abc import Callable, Iterator

from tests.machine.ledger import NEVER, Call, Sent
from tests.machine.promises.book import Book


def a_prompt_is_one_run(book: Book) -> Iterator[str]:
    """R05, R06: however often it was sent, it is one run, with what was sent; and runs once."""
    there = Counter(life.content for life in book.lives.values())
    for sent in book.ledger.sent:
        told = {call.told["run_id"] for call in sent.calls if call.status == 202}
        if len(told) > 1:
            yield f"{sent} was accepted as {sorted(told)} (R06)"
        if there[sent.content] > 1:
            yield f"{sent} runs {there[sent.content]} times (R06)"
        if sent.run_id is not None and told - {sent.run_id}:
            yield f"{sent} was to be {sent.run_id}, and is {told} (R06)"
        for run_id in told & book.lives.keys():
            life = book.lives[run_id]
            if life.content != sent.content:
                yield f"{sent} was answered with {life} (R06)"
    asked = Counter(one.run_id for one in book.ledger.asked)
    for life in book.lives.values():
        most = life.run["attempt"] if life.sent is not None and life.sent.on_crash == "retry" else 1
        if asked[life.id] > most:
            yield f"{life} was answered {asked[life.id]} times (R06)"
        if life.sent is None:
            yield f"{life} is there, and nobody sent it (R03)"


def names_are_of_one_prompt(book: Book) -> Iterator[str]:
    """R06: of all prompts under one id or key, one is accepted."""
    names: dict[tuple[str, str], Sent] = {}
    for sent in book.ledger.sent:
        if any(call.status == 202 for call in sent.calls):
            for kind, name in (("id", sent.run_id), ("key", sent.key)):
                other = names.setdefault((kind, name), sent) if name is not None else sent
                if other is not sent:
                    yield f"{sent} and {other} were accepted under the same {kind} (R06)"


def refused_prompts_leave_no_trace(book: Book) -> Iterator[str]:
    """R02, R03: what was refused each time is not there. Nobody knows of what was never answered."""
    there = {life.content for life in book.lives.values()}
    for sent in book.ledger.sent:
        if sent.calls and sent.content in there and all(call.status >= 400 for call in sent.calls):
            yield f"{sent} was refused each time, and is there (R03)"
    for call in book.ledger.of("bad"):
        if call.status not in (0, 404, 409, 503) and call.status != int(call.target):
            yield f"{call.body!r} was answered with {call.status} {call.told}, and not {call.target} (R03)"


def refused_for_a_reason(book: Book) -> Iterator[str]:
    """R03, R04, R15, R16: each refusal has its cause."""
    for sent in book.ledger.sent:
        for call in sent.calls:
            if call.status >= 400 and not has_cause(book, sent, call):
                yield f"{sent} was refused for no reason: {call.status} {call.told} (R03)"
    for call in book.ledger.calls:
        if call.kind not in ("prompt", "bad") and call.status >= 400 and not is_away(book, call):
            yield f"{call.kind} {call.target} was refused for no reason: {call.status} {call.told}"


def has_cause(book: Book, sent: Sent, call: Call) -> bool:
    """Whether a prompt may be refused so."""
    earlier = [one for one in book.ledger.of("prompt") if one is not call and one.began < call.answered]
    match call.status, call.problem:
        case 409, "session_busy":
            busy = [life for life in book.by_session[sent.session_id] if life.ended_moment > call.began]
            unknown = [one for one in earlier if one.target == sent.session_id and one.status != 202]
            return sent.policy == "reject" and bool(busy or unknown)
        case 422, "idempotency_conflict":
            others = [one for one in book.ledger.sent if one is not sent and one.calls]
            return any(share_a_name(one, sent) for one in others) or sent.session_id in book.deleted
        case 429, "queue_full":
            return book.queue <= len(earlier)
    return is_away(book, call)


def share_a_name(one: Sent, other: Sent) -> bool:
    """Whether they were sent under the same id or key."""
    return (one.run_id is not None and one.run_id == other.run_id) or (one.key is not None and one.key == other.key)


def is_away(book: Book, call: Call) -> bool:
    """Whether what the request is about was being taken away: a workspace, a session, a server; or never was there."""
    stopped = book.ledger.stops.get(call.server, NEVER) < call.answered
    closed = any(one.began < call.answered for one in book.closings())
    match call.status, call.problem:
        case 404, "workspace_not_found":
            return closed
        case 404, "session_not_found":
            return any(one.began < call.answered for one in book.ledger.of("delete session"))
        case 404, "run_not_found":
            life = book.lives.get(call.target)
            return life is None or life.first_told > call.began or bool(book.deleted)
        case 409, "workspace_closing":
            return closed
        case 503, "server_stopping":
            return stopped
    return False


PROMISES: tuple[Callable[[Book], Iterator[str]], ...] = (
    a_prompt_is_one_run,
    names_are_of_one_prompt,
    refused_prompts_leave_no_trace,
    refused_for_a_reason,
)

"""Requests: what asked a person is answered once, by the first, and waits for nobody after its run (R10, R31)."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from engine.records.event import (
    PermissionAsked,
    PermissionResolved,
    QuestionsAsked,
    QuestionsResolved,
    RunCompleted,
)
from engine.records.permission import Decision
from tests.explorer.ledger import Committed
from tests.explorer.rules.book import NEVER, Book


def requests_are_resolved_once(book: Book) -> Iterator[str]:
    """R10, R31: each request is resolved, once, between its being asked and the ending of its run."""
    asked: dict[str, tuple[int, str | None]] = {}
    resolved: Counter[str] = Counter()
    ended: set[str] = set()
    for place, entry in enumerate(book.ledger.committed):
        body = entry.event.body
        if isinstance(body, PermissionAsked):
            asked[body.request.id] = place, body.request.run_id
        elif isinstance(body, QuestionsAsked):
            asked[body.batch.id] = place, body.batch.run_id
        elif (request_id := resolved_by(entry)) is not None:
            resolved[request_id] += 1
            if request_id not in asked:
                yield f"request {request_id} was resolved before it was asked (R31)"
            elif asked[request_id][1] in ended:
                yield f"request {request_id} was resolved after its run had ended (R10)"
        elif isinstance(body, RunCompleted):
            ended.add(body.run_id)
    for request_id in asked:
        if resolved[request_id] != 1:
            yield f"request {request_id} was resolved {resolved[request_id]} times (R10, R31)"


def the_first_answer_wins(book: Book) -> Iterator[str]:
    """R31: who is told that their answer decided it was the first; who is told that it did not was not."""
    decisions: dict[str, tuple[Decision | None, int]] = {}
    for entry in book.ledger.committed:
        if (request_id := resolved_by(entry)) is not None:
            body = entry.event.body
            decision = body.decision if isinstance(body, PermissionResolved) else None
            decisions.setdefault(request_id, (decision, entry.moment))
    deciding: defaultdict[str, int] = defaultdict(int)
    asked = {body.request.id for body in bodies(book) if isinstance(body, PermissionAsked)}
    asked |= {body.batch.id for body in bodies(book) if isinstance(body, QuestionsAsked)}
    for answered in book.ledger.answered:
        decision, moment = decisions.get(answered.request_id, (None, NEVER))
        if answered.is_decided is None or answered.request_id not in asked:  # the store did not take the request
            continue
        deciding[answered.request_id] += answered.is_decided
        if answered.is_decided and not answered.is_question and decision != answered.decision:
            yield f"{answered.request_id} was decided as {answered.decision}, and is {decision} (R31)"
        # A call that is canceled waits for nobody, a little before the ending of its run withdraws what it asked.
        was_open = not answered.is_question and decision is not Decision.WITHDRAWN
        if not answered.is_decided and was_open and moment > (answered.ended or 0):
            yield f"an answer to {answered.request_id} came too late, and nobody had answered (R31)"
    for request_id, times in deciding.items():
        if times > 1:
            yield f"{times} answers decided {request_id} (R31)"


def nothing_is_changed_unasked(book: Book) -> Iterator[str]:
    """R31: a tool went on only when it was allowed to, this once or in this session."""
    granted_calls: dict[tuple[str, str], int] = {}
    granted_sessions: dict[str, int] = {}
    for entry in book.ledger.committed:
        body = entry.event.body
        if isinstance(body, PermissionResolved) and body.decision.is_granted:
            granted_calls[body.session_id, body.tool_call_id] = entry.moment
            if body.decision is Decision.ALLOW_SESSION:
                granted_sessions.setdefault(body.session_id, entry.moment)
    for changed in book.ledger.changed:
        session_id = book.parent_of(changed.session_id) or changed.session_id  # a sub-agent asks as its run does
        allowed = min(
            granted_calls.get((session_id, changed.call_id), NEVER),
            granted_sessions.get(session_id, NEVER),
        )
        if allowed > changed.moment:
            yield f"{changed.run_id} changed something, and nobody had allowed it (R31)"


def bodies(book: Book) -> Iterator[object]:
    """What became durable, in order."""
    return (entry.event.body for entry in book.ledger.committed)


def resolved_by(entry: Committed) -> str | None:
    """The request that this event resolves."""
    body = entry.event.body
    if isinstance(body, PermissionResolved):
        return body.request_id
    return body.batch_id if isinstance(body, QuestionsResolved) else None


RULES: tuple[Callable[[Book], Iterator[str]], ...] = (
    requests_are_resolved_once,
    the_first_answer_wins,
    nothing_is_changed_unasked,
)

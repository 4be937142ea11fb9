"""Cancels: none is lost, none is sticky, and what an answer names ends canceled (R07-R13, R15, R17)."""

from collections.abc import Callable, Iterator

from engine.records.run import IfBusy, RunState
from engine.runs.cancel import QUEUE_CLEARED
from tests.explorer.ledger import Countermanded
from tests.explorer.rules.book import NEVER, Book, Life

AT_ONCE_S = 1e-6  # virtual seconds
INTERRUPTED = "interrupted by run "


def named_runs_end_canceled(book: Book) -> Iterator[str]:
    """R11: whatever happens next."""
    for made in book.ledger.countermanded:
        for run_id in made.named:
            life = book.lives.get(run_id)
            if life is None or life.state is not RunState.CANCELED:
                yield f"{run_id} was named by a cancel of a {made.kind}, and is {life and life.state} (R11)"


def cancels_cover_what_was_there(book: Book) -> Iterator[str]:
    """R07: what was accepted before a cancel was called is named by its answer, unless it had ended by then."""
    for made in book.ledger.countermanded:
        if made.answered is None or made.kind not in ("session", "run"):
            continue
        for life in book.lives.values():
            is_meant = life.record.session_id == made.target if made.kind == "session" else life.id == made.target
            was_there = life.first_answered < made.began and life.ended_moment > made.answered
            if is_meant and was_there and life.id not in made.named:
                yield f"{life.id} was accepted before a cancel of its {made.kind}, and is not named (R07)"


def cancels_cover_nothing_else(book: Book) -> Iterator[str]:
    """R12, R17: a cancel of one run names that one, of a session none of another, of a queue none that had begun."""
    for made in book.ledger.countermanded:
        for life in (book.lives[run_id] for run_id in made.named if run_id in book.lives):
            if made.kind == "run" and life.id != made.target:
                yield f"{life.id} was named by a cancel of another run (R12)"
            if made.kind != "run" and life.record.session_id != made.target:
                yield f"{life.id} was named by a cancel of another session (R07)"
            if made.kind == "queue" and life.begun is not None and life.begun.moment < made.began:
                yield f"{life.id} was named as cleared from the queue, and was active (R17)"


def canceled_for_a_reason(book: Book) -> Iterator[str]:
    """R08: a run ends canceled only if something that came after it covered it."""
    for life in book.lives.values():
        if life.state is RunState.CANCELED and not is_justified(book, life):
            yield f"{life.id} ended canceled ({life.record.cancel_reason!r}), and nothing covers it (R08)"


def is_justified(book: Book, life: Life) -> bool:
    """Whether the reason on record covers the run."""
    reason, session = life.record.cancel_reason, life.record.session_id
    if reason is None:  # its record failed, and the run was flagged all the same
        return book.has_trouble
    if reason.startswith(INTERRUPTED):
        other = book.lives.get(reason.removeprefix(INTERRUPTED))
        return other is not None and other.record.session_id == session and other.record.seq > life.record.seq
    if reason == QUEUE_CLEARED:
        return any(covers(made, life) for made in book.ledger.countermanded if made.kind == "queue")
    if reason == "the session was deleted":
        deletes = (made for made in book.ledger.countermanded if made.kind == "delete" and made.target == session)
        return any((made.answered or NEVER) > life.first_asked for made in deletes)
    if reason == "the last client left":
        return not book.scenario.is_kept
    if reason in ("the workspace was closed", "the server stopped"):
        closings = [each for each in book.ledger.closings if each.why == reason]
        has_begun = life.begun is not None or life.record.steered_into is not None
        # What waits stays for the next start (R24). One whose beginning the store did not take waits no longer.
        is_left = reason == "the server stopped" and not has_begun and not book.has_trouble
        return not is_left and any(closing.moment > life.first_asked for closing in closings)
    return any(covers(made, life) for made in book.ledger.countermanded if made.reason == reason)


def covers(made: Countermanded, life: Life) -> bool:
    """Whether this cancel may have canceled the run: it came after it, and its answer, if there was one, names it."""
    target = life.id if made.kind == "run" else life.record.session_id
    is_named = made.answered is None or life.id in made.named
    # A cancel of one run, which its caller named, may meet the prompt on its way in.
    is_later = made.began > life.first_asked or (made.kind == "run" and (made.answered or NEVER) > life.accepted.moment)
    return made.target == target and is_later and is_named


def unbegun_runs_reached_no_agent(book: Book) -> Iterator[str]:
    """R09: a run that was canceled before it began called no model."""
    for life in book.lives.values():
        if life.begun is None and life.answered:
            yield f"{life.id} never began, and an agent was asked (R09)"
        if life.marked is not None and life.begun is not None and life.begun.moment > life.marked.moment:
            yield f"{life.id} began after its cancel was recorded (R09)"


def canceling_is_prompt(book: Book) -> Iterator[str]:
    """R13: between the answer and the ending nothing is waited for that takes time."""
    if book.has_trouble:
        return
    for made in book.ledger.countermanded:
        for life in (book.lives[run_id] for run_id in made.named if run_id in book.lives):
            if life.ended is None or life.ended.server != made.server or book.is_stubborn(life):
                continue
            host = book.lives.get(life.record.steered_into or "")
            if host is not None and book.is_stubborn(host):
                continue
            if (took := life.ended.at - made.answered_at) > AT_ONCE_S:
                yield f"{life.id} ended {took:.3f} s after its cancel was answered (R13)"


def interrupts_cover_what_was_there(book: Book) -> Iterator[str]:
    """R15: what was accepted before a prompt that interrupts ends canceled, unless it had ended by then."""
    for life in book.lives.values():
        if life.record.prompt.if_busy is not IfBusy.INTERRUPT:
            continue
        for other in book.by_session[life.record.session_id]:
            was_there = other is not life and other.first_answered < life.first_asked
            if was_there and other.ended_moment > life.accepted.moment and other.state is not RunState.CANCELED:
                yield f"{other.id} was there when {life.id} interrupted, and is {other.state} (R15)"


RULES: tuple[Callable[[Book], Iterator[str]], ...] = (
    named_runs_end_canceled,
    cancels_cover_what_was_there,
    cancels_cover_nothing_else,
    canceled_for_a_reason,
    unbegun_runs_reached_no_agent,
    canceling_is_prompt,
    interrupts_cover_what_was_there,
)

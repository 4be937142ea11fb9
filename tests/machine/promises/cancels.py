"""Cancels: none is lost, none is sticky, and the answer is a promise (R07-R13, R15, R17)."""

from collections.abc import Callable, Iterator

from tests.machine.ledger import Call
from tests.machine.promises.book import Book, Life

AT_ONCE_S = 1e-6


def named_runs_end_canceled(book: Book) -> Iterator[str]:
    """R11, R17: each run named ends canceled, whatever happens next."""
    for call in book.cancels():
        for run_id in call.named:
            life = book.lives.get(run_id)
            if life is None:
                yield f"{call.kind} {call.target} named {run_id}, which nobody knows (R11)"
            elif life.state != "canceled":
                yield f"{life} was named by {call.kind} {call.target}, and ended {life.state} (R11)"
            elif life.ended_moment < call.began:
                yield f"{life} had ended before {call.kind} {call.target} was sent, and was named (R11)"


def cancels_cover_what_was_there(book: Book) -> Iterator[str]:
    """R07, R12: a run whose acceptance was stored when the cancel was sent is covered, unless its ending was stored
    before the cancel."""
    for call in book.ledger.of("cancel session", "cancel run"):
        if call.status != 200:
            continue
        for life in book.lives.values():
            is_meant = call.target == (life.id if call.kind == "cancel run" else life.session_id)
            if is_meant and life.accepted.moment < call.began and not is_named_or_over(life, call):
                yield f"{life} was there when {call.kind} {call.target} was sent, and was not covered (R07)"


def is_named_or_over(life: Life, call: Call) -> bool:
    """Whether the cancel covers the run, or came too late for it."""
    return life.id in call.named or life.ended_moment < call.answered


def cancels_cover_nothing_else(book: Book) -> Iterator[str]:
    """R08, R12, R17: runs of others, and runs that were sent later, are not named."""
    for call in book.cancels():
        for life in (book.lives[run_id] for run_id in call.named if run_id in book.lives):
            if call.target != (life.id if call.kind == "cancel run" else life.session_id):
                yield f"{life} was named by {call.kind} {call.target} (R12)"
            if life.first_sent > call.answered:
                yield f"{life} was sent after {call.kind} {call.target} was answered, and was named (R08)"
            if call.kind == "clear" and life.begun is not None and life.begun.moment < call.began:
                yield f"{life} was cleared from the queue, and had begun (R17)"


def terminal_runs_stay(book: Book) -> Iterator[str]:
    """R12: a cancel of a run that has ended says how it ended; and whatever was told to be terminal stays so."""
    for call in book.ledger.of("cancel run"):
        life = book.lives.get(call.target)
        if call.status == 200 and life is not None and not call.named and call.told["state"] != life.state:
            yield f"{life} was told to be {call.told['state']} by a cancel, and ended {life.state} (R12)"


def canceled_for_a_reason(book: Book) -> Iterator[str]:
    """R08: a run ends canceled only if something covers it that came after it."""
    for life in book.lives.values():
        if life.state == "canceled" and not any(
            (has_cancel(book, life), has_interrupt(book, life), has_closing(book, life), has_stop(book, life))
        ):
            yield f"{life} ended canceled, and nothing covers it (R08)"


def has_cancel(book: Book, life: Life) -> bool:
    """Whether a cancel covers the run: it was answered with its name, or not answered and it may."""
    for call in (*book.cancels(), *book.ledger.of("delete session")):
        if call.target not in (life.id, life.session_id) or call.answered < life.first_sent:
            continue
        if call.began > life.ended_moment:
            continue
        if call.status != 200 or call.kind == "delete session" or life.id in call.named:
            return True
    return False


def has_interrupt(book: Book, life: Life) -> bool:
    """Whether a later prompt of its session interrupts."""
    return any(
        other.run["if_busy"] == "interrupt" and other.number > life.number for other in book.by_session[life.session_id]
    )


def has_closing(book: Book, life: Life) -> bool:
    """Whether the workspace was closed when it was there."""
    return any(life.first_sent < call.answered and call.began < life.ended_moment for call in book.closings())


def has_stop(book: Book, life: Life) -> bool:
    """Whether it had begun, alone or in another's turn, when its server stopped. What waits is left for later (R24)."""
    stops = (moment for server, moment in book.ledger.stops.items() if server in book.ledger.drains)
    has_begun = life.begun is not None or bool(life.run["steered_into"])
    return has_begun and any(life.first_sent < moment < life.ended_moment for moment in stops)


def unbegun_runs_reached_no_model(book: Book) -> Iterator[str]:
    """R09: a run that was canceled before it began called no model, and is not shown to one later."""
    for life in book.lives.values():
        if life.state != "canceled" or life.begun is not None or life.run["steered_into"]:
            continue
        for asked in book.ledger.asked:
            if asked.run_id == life.id:
                yield f"{life} never began, and the model was asked (R09)"
            if asked.session_id == life.session_id and life.text in asked.history and asked.moment > life.ended_moment:
                yield f"{life} was canceled before it began, and came back in the history of {asked.run_id} (R09)"


def canceling_is_prompt(book: Book) -> Iterator[str]:
    """R13: between the answer and the ending nothing is waited for that takes time."""
    for call in book.cancels():
        for life in (book.lives[run_id] for run_id in call.named if run_id in book.lives):
            if life.ended is None or life.ended.server != call.server:
                continue
            if (took := life.ended.at - call.answered_at) > AT_ONCE_S:
                yield f"{life} ended {took:.3f} s after its cancel was answered (R13)"


def interrupts_cover_what_was_there(book: Book) -> Iterator[str]:
    """R15: what was accepted before a prompt that interrupts ends canceled, unless it had ended by then."""
    for life in book.lives.values():
        if life.run["if_busy"] != "interrupt":
            continue
        for other in book.by_session[life.session_id]:
            was_there = other is not life and other.accepted.moment < life.first_sent
            if was_there and other.ended_moment > life.accepted.moment and other.state != "canceled":
                yield f"{other} was there when {life} interrupted, and ended {other.state} (R15)"


def closing_waits_for_the_ends(book: Book) -> Iterator[str]:
    """R23: when a close is answered, everything that was accepted before it has ended; so has what a deleted session
    had."""
    for call in (*book.closings(), *book.ledger.of("delete session")):
        for life in book.lives.values():
            is_meant = call.kind == "close" or call.target == life.session_id
            was_there = is_meant and life.accepted.moment < call.began
            if call.status == 200 and was_there and life.ended_moment > call.answered:
                yield f"{life} ended after {call.kind} was answered (R23)"


PROMISES: tuple[Callable[[Book], Iterator[str]], ...] = (
    named_runs_end_canceled,
    cancels_cover_what_was_there,
    cancels_cover_nothing_else,
    terminal_runs_stay,
    canceled_for_a_reason,
    unbegun_runs_reached_no_model,
    canceling_is_prompt,
    interrupts_cover_what_was_there,
    closing_waits_for_the_ends,
)

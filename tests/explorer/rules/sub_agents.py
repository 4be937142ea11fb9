"""Sub-agents: each is a part of its run. It has an ending of its own or that of its run, and never one behind it; what
came of it is the result of a call, and what it cost is its run's (R10, R18, R19, R25).
"""

from collections.abc import Callable, Iterator, Mapping

from engine.records.event import AgentFailed, AgentFinished, RunChanged, RunCompleted
from engine.records.message import FinishReason, Role
from engine.records.run import OnCrash, RunState, Usage
from engine.runs.sub_agents import NO_WORDS
from engine.tools.agent import READ_ONLY
from tests.explorer.rules.book import Book
from tests.explorer.rules.endings import last_words

BEGINNING = (Role.USER, Role.ASSISTANT)  # its first messages
OWN_ENDINGS: Mapping[str | None, FinishReason] = {"returned": FinishReason.END_TURN, "failed": FinishReason.ERROR}
RUN_EVENTS = (RunChanged, RunCompleted, AgentFinished, AgentFailed)


def closed_when_the_run_ends(book: Book) -> Iterator[str]:
    """R10, R19: when the terminal event comes, each message of a sub-agent has its finish, and each call its result."""
    for work, life in book.sub_agents():
        if len(work.messages) < len(BEGINNING):
            yield f"{work} of {life.id} has no beginning (R25)"
        for what in work.open_at(life.ended_moment):
            yield f"{work} of {life.id} has {what} open when that ends (R10, R19)"


def nothing_comes_after_the_run(book: Book) -> Iterator[str]:
    """R10, R13, R19: no sub-agent is at work behind the terminal event, and nothing more is told of it."""
    for work, life in book.sub_agents():
        if work.last_told > life.ended_moment:
            yield f"{work} of {life.id} was told of after that had ended (R19)"
        if work.deleted is None and work.parent_deleted is not None:
            yield f"{work} is left, and the session of {life.id} was deleted"
        if life.ended is None or book.is_stubborn(life):
            continue
        for answering in work.answerings:
            if answering.server == life.ended.server and (answering.ended or life.ended.moment) >= life.ended.moment:
                yield f"{work} was at work when {life.id} had ended (R10, R13)"


def ended_once(book: Book) -> Iterator[str]:
    """R10: a sub-agent that had ended keeps its ending."""
    for work, _ in book.sub_agents():
        for told in work.messages.values():
            if len(told.finishes) > 1:
                yield f"{work} ended a message more than once: {told.finishes} (R10)"


def ended_by_itself_or_with_its_run(book: Book) -> Iterator[str]:
    """R10, R21, R25: what is still at work ends as its run does; what had ended, as its script says."""
    for work, life in book.sub_agents():
        if work.last is None or work.last.finished is None or life.ended is None:
            continue
        reason = work.last.finishes[0]
        is_own = reason is OWN_ENDINGS.get(work.how)
        is_with_its_run = work.last.finished == life.ended.moment
        if is_with_its_run and reason is not closed_as(life.state) and not (is_own and book.has_trouble):
            yield f"{work} ended as {reason} with {life.id}, which ended {life.state} (R10)"
        # An attempt that was broken off, and is made again.
        is_retried = life.record.prompt.on_crash is OnCrash.RETRY and reason is FinishReason.ERROR
        if not (is_with_its_run or is_own or is_retried or book.is_stubborn(life)):
            yield f"{work} of {life.id} ended as {reason}, and nothing made it (R10)"


def closed_as(state: RunState) -> FinishReason | None:
    """How a sub-agent ends that is still at work when its run ends. There is none when a run completes."""
    if state is RunState.CANCELED:
        return FinishReason.CANCELED
    return None if state is RunState.COMPLETED else FinishReason.ERROR


def results_are_its_words(book: Book) -> Iterator[str]:
    """R10: what a sub-agent said last is the result of the call, if it came to its end; its failure is an error of the
    call, and so is the cancel of its run."""
    for work, life in book.sub_agents():
        result = work.result
        if result is None or book.is_stubborn(life):
            continue
        script = book.ledger.scripts.get(work.prompt, ())
        words = last_words(script).strip() or NO_WORDS
        if not result.is_error and not (work.how == "returned" and result.content == words):
            yield f"{work} said {words!r} if anything, and its call has the result {result.content!r} (R10)"
        is_denied = any(word.startswith("peek") for word in script)
        is_left = life.state is not RunState.COMPLETED or life.record.attempt > 1 or book.has_trouble
        if result.is_error and work.how == "returned" and not (is_denied or is_left):
            yield f"{work} came to its end, and its call to an error: {result.content!r} (R10)"
        is_cut_off = work.told_result == life.ended_moment and life.state is RunState.CANCELED
        if is_cut_off and not (result.is_error and "canceled" in result.content) and not book.has_trouble:
            yield f"{life.id} was canceled, and the call of {work} has the result {result.content!r} (R10)"


def they_only_look(book: Book) -> Iterator[str]:
    """R31: a sub-agent has no other tools than those that look."""
    for work, _ in book.sub_agents():
        for told in work.messages.values():
            for result in told.message.tool_results:
                if result.name not in READ_ONLY and not result.is_error:
                    yield f"{work} called {result.name}, and got {result.content!r} (R31)"


def no_runs_of_their_own(book: Book) -> Iterator[str]:
    """R18: nobody accepted a sub-agent. It is no run, has no terminal event, and nobody is notified of its end."""
    for entry in book.ledger.committed if book.works else ():
        body = entry.event.body
        if isinstance(body, RUN_EVENTS) and entry.event.session_id in book.works:
            yield f"{type(body).__name__} of {entry.event.session_id}, which is no run (R18)"


def what_is_used_is_counted(book: Book) -> Iterator[str]:
    """What an agent has accounted for is in the cost of its session and of its run; what a sub-agent has, in those of
    the session and the run that it works for, too. A crash or a store in trouble may lose what the last step cost."""
    if book.has_trouble or book.ledger.server > 1:
        return
    costs: dict[str, float] = {}
    usages: dict[str, Usage] = {}
    for used in book.ledger.used:
        usages[used.run_id] = usages.get(used.run_id, Usage()) + used.usage
        for session_id in (used.session_id, book.parent_of(used.session_id)):
            if session_id is not None:
                costs[session_id] = costs.get(session_id, 0.0) + used.usage.cost
    for session_id, cost in book.costs.items():
        if cost != costs.get(session_id, 0.0):
            yield f"session {session_id} costs {cost}, and its agents took {costs.get(session_id, 0.0)}"
    for run in book.runs:
        if run.usage != usages.get(run.id, Usage()):
            yield f"{run.id} has {run.usage}, and its agents took {usages.get(run.id)}"


RULES: tuple[Callable[[Book], Iterator[str]], ...] = (
    closed_when_the_run_ends,
    nothing_comes_after_the_run,
    ended_once,
    ended_by_itself_or_with_its_run,
    results_are_its_words,
    they_only_look,
    no_runs_of_their_own,
    what_is_used_is_counted,
)

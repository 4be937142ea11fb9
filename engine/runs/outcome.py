"""Outcomes: what a run came to, in the words that its last message and its terminal event carry (R20)."""

import msgspec
import structlog

from engine.errors import CountermandError, ModelError
from engine.records.message import Finish, FinishReason, storable
from engine.records.run import RunError, RunState

CANCELED_TITLE = "Canceled"

logger = structlog.get_logger(__name__)


class Outcome(msgspec.Struct, frozen=True):
    """What a run came to: `finish` ends its last message, `error` is set for failed and interrupted ones."""

    state: RunState
    finish: Finish
    error: RunError | None = None


def completed(finish: Finish) -> Outcome:
    """The agent said all it had to say."""
    return Outcome(RunState.COMPLETED, finish)


def canceled(reason: str) -> Outcome:
    """Somebody canceled the run."""
    return Outcome(RunState.CANCELED, Finish(FinishReason.CANCELED, title=CANCELED_TITLE, details=reason))


def failed(error: RunError) -> Outcome:
    """The run failed, and `error` says why (R20)."""
    return Outcome(RunState.FAILED, Finish(FinishReason.ERROR, title=error.title, details=error.details), error)


def interrupted(error: RunError) -> Outcome:
    """The server died under the run (R25)."""
    return Outcome(RunState.INTERRUPTED, Finish(FinishReason.ERROR, title=error.title, details=error.details), error)


def why_no_result(outcome: Outcome) -> str:
    """What a model is told of a call that has no result."""
    if outcome.state is RunState.CANCELED:
        return "The user canceled this turn before the tool had a result."
    if outcome.state is RunState.INTERRUPTED:
        return "The server stopped before the tool had a result; it may have done part of its work."
    return "The turn failed before the tool had a result."


def describe(error: BaseException) -> RunError:
    """A failure in words that a person can act on (R20)."""
    words = words_of(error)
    return RunError(words.type, storable(words.title), storable(words.details))


def words_of(error: BaseException) -> RunError:
    """The words of a failure, as it gives them."""
    if isinstance(error, ModelError):
        return RunError(error.kind, error.title, error.details)
    if isinstance(error, CountermandError):
        return RunError("engine", "The run could not go on", str(error))
    logger.error("agent failed", exc_info=error)
    return RunError("agent", "The agent failed", f"{type(error).__name__}: {error}")

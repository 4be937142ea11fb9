"""When a failed model request is made again (R20)."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from engine.errors import ModelError

RETRIES = 3
FIRST_DELAY_SECONDS = 1.0  # doubled each time; no jitter, so that a run can be replayed
LONGEST_WAIT_SECONDS = 60.0  # a provider that asks for this much is not waited for

T = TypeVar("T")


async def with_retries(
    ask: Callable[[], Awaitable[T]], *, before_retry: Callable[[ModelError, float], None] = lambda error, delay: None
) -> T:
    """Ask, and ask again after a transient `ModelError`, up to `RETRIES` times. Everything else, and the last error, is
    raised as it came.

    `before_retry(error, delay)` runs before each wait: the place to take back what the failed attempt has shown.
    """

    async def attempt() -> T:  # tenacity does not await what a lambda returns
        return await ask()

    def announce(state: RetryCallState) -> None:
        before_retry(_error_of(state), state.upcoming_sleep)

    retrying = AsyncRetrying(
        sleep=trio.sleep,
        stop=stop_after_attempt(1 + RETRIES),
        retry=retry_if_exception(_is_worth_retrying),
        wait=lambda state: delay_before_retry(_error_of(state), state.attempt_number),
        before_sleep=announce,
        reraise=True,
    )
    return await retrying(attempt)


def delay_before_retry(error: ModelError, attempt: int) -> float:
    """How long to wait after attempt `attempt`, counted from 1: what the provider asks for, else 1, 2, 4 seconds."""
    return error.retry_after or FIRST_DELAY_SECONDS * 2 ** (attempt - 1)


def _is_worth_retrying(error: BaseException) -> bool:
    return isinstance(error, ModelError) and error.is_transient and (error.retry_after or 0.0) < LONGEST_WAIT_SECONDS


def _error_of(state: RetryCallState) -> ModelError:
    error = state.outcome.exception() if state.outcome is not None else None
    assert isinstance(error, ModelError)  # nothing else is retried
    return error

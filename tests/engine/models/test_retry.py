"""R20: transient failures are retried, with time between; others, and too many, are not."""

import typing

import pytest
import trio
from trio.testing import MockClock

from engine.errors import TRANSIENT_KINDS, ModelError, ModelErrorKind
from engine.models.offline import SCRIPT, OfflineModel
from engine.models.retry import RETRIES, with_retries
from tests.engine.models.asking import ask, request, text_of, user

KINDS: tuple[ModelErrorKind, ...] = typing.get_args(ModelErrorKind)


class Provider:
    """Fails with these errors, one after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.asked_at: list[float] = []

    async def ask(self) -> str:
        self.asked_at.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


def failure(kind: ModelErrorKind = "server", retry_after: float | None = None) -> ModelError:
    return ModelError(kind, "title", "details", retry_after=retry_after)


async def test_r20_a_first_answer_is_taken_at_once(autojump_clock: MockClock) -> None:
    provider = Provider()
    assert await with_retries(provider.ask) == "answer"
    assert provider.asked_at == [0]


@pytest.mark.parametrize("kind", sorted(TRANSIENT_KINDS))
async def test_r20_a_transient_failure_is_retried_with_doubling_waits(
    kind: ModelErrorKind, autojump_clock: MockClock
) -> None:
    provider = Provider(*(failure(kind) for _ in range(RETRIES)))
    assert await with_retries(provider.ask) == "answer"
    assert provider.asked_at == pytest.approx([0, 1, 3, 7])


@pytest.mark.parametrize("kind", sorted(set(KINDS) - TRANSIENT_KINDS))
async def test_r20_any_other_failure_is_raised_at_once(kind: ModelErrorKind, autojump_clock: MockClock) -> None:
    error = failure(kind)
    provider = Provider(error)
    with pytest.raises(ModelError) as caught:
        await with_retries(provider.ask)
    assert caught.value is error
    assert len(provider.asked_at) == 1


async def test_r20_the_last_failure_is_raised_as_it_came(autojump_clock: MockClock) -> None:
    errors = [failure() for _ in range(RETRIES + 1)]
    provider = Provider(*errors)
    with pytest.raises(ModelError) as caught:
        await with_retries(provider.ask)
    assert caught.value is errors[-1]
    assert provider.asked_at == pytest.approx([0, 1, 3, 7])


@pytest.mark.parametrize(("retry_after", "waited"), [(0.25, 0.25), (59.9, 59.9), (0.0, 1.0), (None, 1.0)])
async def test_r20_the_wait_that_the_provider_asks_for_is_honoured(
    retry_after: float | None, waited: float, autojump_clock: MockClock
) -> None:
    provider = Provider(failure("rate_limit", retry_after))
    await with_retries(provider.ask)
    assert provider.asked_at == pytest.approx([0, waited])


async def test_r20_a_provider_that_asks_for_a_minute_is_not_waited_for(autojump_clock: MockClock) -> None:
    provider = Provider(failure("rate_limit", 60.0))
    with pytest.raises(ModelError):
        await with_retries(provider.ask)
    assert provider.asked_at == [0]


async def test_r20_before_each_wait_the_attempt_can_be_taken_back(autojump_clock: MockClock) -> None:
    taken_back: list[tuple[ModelError, float, float]] = []
    errors = [failure(), failure("rate_limit", 5.0)]
    provider = Provider(*errors)
    await with_retries(
        provider.ask, before_retry=lambda error, delay: taken_back.append((error, delay, trio.current_time()))
    )
    assert taken_back == [(errors[0], 1.0, 0.0), (errors[1], 5.0, 1.0)]


async def test_r20_nothing_is_taken_back_when_it_is_given_up(autojump_clock: MockClock) -> None:
    taken_back: list[float] = []
    with pytest.raises(ModelError):
        await with_retries(
            Provider(failure("bad_request")).ask, before_retry=lambda error, delay: taken_back.append(delay)
        )
    assert taken_back == []


async def test_errors_that_are_no_model_errors_go_straight_through(autojump_clock: MockClock) -> None:
    provider = Provider(ValueError("ours"))
    with pytest.raises(ValueError, match="ours"):
        await with_retries(provider.ask)
    assert len(provider.asked_at) == 1


async def test_r13_cancelling_during_the_wait_ends_it(autojump_clock: MockClock) -> None:
    provider = Provider(*(failure() for _ in range(RETRIES)))
    with trio.move_on_after(2) as scope:
        await with_retries(provider.ask)
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(2)
    assert provider.asked_at == pytest.approx([0, 1])


async def test_r13_cancelling_during_an_attempt_ends_it(autojump_clock: MockClock) -> None:
    with trio.move_on_after(2) as scope:
        await with_retries(trio.sleep_forever)
    assert scope.cancelled_caught


async def test_r20_a_scripted_model_recovers_under_the_policy(autojump_clock: MockClock) -> None:
    model = OfflineModel(SCRIPT)
    prompt = user('```script\n[[{"text": "a"}, {"fail": "connection", "times": 3}, {"text": "b"}]]\n```')
    assert text_of(await with_retries(lambda: ask(model, request(prompt)))) == "ab"
    assert model.statistics().opened == model.statistics().closed == 4

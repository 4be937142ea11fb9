"""ClientClaims: the rules of Crush's claims one by one, then every short sequence of them against what must hold."""

import copy
import math
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.claims import ClaimStatistics, ClientClaims
from engine.errors import ClientNotAttached
from engine.records.ids import ClientId

HOLD = 30.0
GRACE = 10.0
ANN = ClientId("ann")
BOB = ClientId("bob")


@pytest.fixture
def claims() -> ClientClaims:
    return ClientClaims(create_hold_s=HOLD, detach_grace_s=GRACE)


def claimed_at(claims: ClientClaims, now: float) -> bool:
    """Whether the claims, left alone until `now`, still hold the workspace."""
    left_alone = copy.deepcopy(claims)
    left_alone.expire(now)
    return left_alone.is_claimed()


def test_nothing_claims_a_new_workspace(claims: ClientClaims) -> None:
    assert not claims.is_claimed()
    assert not claims.is_kept
    assert claims.next_deadline() is None


def test_a_kept_workspace_stays_whoever_comes_and_goes(claims: ClientClaims) -> None:
    claims.keep()
    claims.hold(ANN, 0.0)
    claims.drop(ANN)
    claims.expire(math.inf)
    assert claims.is_kept
    assert claims.is_claimed()


def test_a_create_holds_for_the_create_hold_and_no_longer(claims: ClientClaims) -> None:
    claims.hold(ANN, 100.0)
    assert claims.next_deadline() == 130.0
    assert claimed_at(claims, 129.999)
    assert not claimed_at(claims, 130.0)


def test_a_stream_stops_the_hold(claims: ClientClaims) -> None:
    claims.hold(ANN, 0.0)
    claims.attach(ANN, 5.0)
    assert claims.next_deadline() is None
    assert claimed_at(claims, 1e9)


def test_a_stream_of_an_unknown_client_claims(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    assert claims.is_claimed()


def test_the_last_stream_that_drops_leaves_a_grace(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.attach(ANN, 0.0)
    claims.detach(ANN, 50.0)
    assert claims.next_deadline() is None
    claims.detach(ANN, 60.0)
    assert claims.next_deadline() == 70.0
    assert not claimed_at(claims, 70.0)


def test_a_reconnect_within_the_grace_finds_everything_unchanged(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.set_current_session(ANN, "s1")
    claims.detach(ANN, 10.0)
    assert claims.attached_clients("s1") == 0
    claims.attach(ANN, 19.0)
    claims.expire(1000.0)
    assert claims.attached_clients("s1") == 1


def test_a_reconnect_at_the_limit_before_anyone_looked_keeps_the_claim(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.set_current_session(ANN, "s1")
    claims.detach(ANN, 0.0)
    claims.attach(ANN, GRACE)
    claims.expire(GRACE)
    assert claims.is_claimed()
    assert claims.attached_clients("s1") == 1


def test_a_reconnect_after_the_grace_starts_anew(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.set_current_session(ANN, "s1")
    claims.detach(ANN, 0.0)
    claims.expire(GRACE)
    claims.attach(ANN, GRACE)
    assert claims.attached_clients("s1") == 0


def test_without_a_grace_the_last_stream_ends_the_claim_at_once() -> None:
    claims = ClientClaims(create_hold_s=HOLD, detach_grace_s=0)
    claims.attach(ANN, 0.0)
    claims.detach(ANN, 1.0)
    assert not claims.is_claimed()


def test_a_release_without_streams_ends_the_claim_at_once(claims: ClientClaims) -> None:
    claims.hold(ANN, 0.0)
    claims.release(ANN, 1.0)
    assert not claims.is_claimed()


def test_a_release_within_the_grace_ends_the_claim_at_once(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.detach(ANN, 1.0)
    claims.release(ANN, 2.0)
    assert not claims.is_claimed()


def test_a_release_with_streams_only_takes_the_grace_away(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.attach(ANN, 0.0)
    claims.release(ANN, 1.0)
    claims.detach(ANN, 2.0)
    assert claims.is_claimed()
    claims.detach(ANN, 3.0)
    assert not claims.is_claimed()


def test_a_release_of_an_unknown_client_changes_nothing(claims: ClientClaims) -> None:
    claims.hold(ANN, 0.0)
    claims.release(BOB, 0.0)
    assert claims.statistics().clients == 1


def test_a_repeated_create_rearms_the_hold_in_full(claims: ClientClaims) -> None:
    claims.hold(ANN, 0.0)
    claims.hold(ANN, 29.0)
    assert claims.next_deadline() == 59.0


def test_a_create_within_the_grace_holds_for_the_full_hold(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.detach(ANN, 0.0)
    claims.hold(ANN, 1.0)
    assert claims.next_deadline() == 31.0


def test_a_repeated_create_keeps_the_current_session(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.set_current_session(ANN, "s1")
    claims.hold(ANN, 1.0)
    assert claims.attached_clients("s1") == 1


def test_a_repeated_create_arms_nothing_while_a_stream_is_open(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.hold(ANN, 1.0)
    assert claims.next_deadline() is None


def test_a_repeated_create_takes_back_an_earlier_release(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.release(ANN, 1.0)
    claims.hold(ANN, 2.0)
    claims.detach(ANN, 3.0)
    assert claims.next_deadline() == 13.0


def test_a_dropped_client_is_gone_with_its_streams(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.drop(ANN)
    assert not claims.is_claimed()
    claims.detach(ANN, 1.0)
    assert claims.next_deadline() is None
    assert not claims.is_claimed()


def test_the_end_of_a_dropped_stream_is_not_taken_for_that_of_a_later_one(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.drop(ANN)
    claims.attach(ANN, 1.0)
    claims.detach(ANN, 2.0)
    assert claims.next_deadline() is None
    claims.detach(ANN, 3.0)
    assert claims.next_deadline() == 13.0


def test_dropping_twice_remembers_every_stream(claims: ClientClaims) -> None:
    for _ in range(2):
        claims.attach(ANN, 0.0)
        claims.drop(ANN)
    claims.attach(ANN, 1.0)
    claims.detach(ANN, 2.0)
    claims.detach(ANN, 2.0)
    assert claims.statistics().streams == 1


def test_dropping_an_unknown_client_changes_nothing(claims: ClientClaims) -> None:
    claims.drop(ANN)
    claims.attach(ANN, 0.0)
    claims.detach(ANN, 1.0)
    assert claims.next_deadline() == 11.0


def test_an_end_too_many_does_not_restart_the_grace(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.detach(ANN, 1.0)
    claims.detach(ANN, 9.0)
    assert claims.next_deadline() == 11.0


def test_the_end_of_an_unknown_stream_changes_nothing(claims: ClientClaims) -> None:
    claims.detach(ANN, 0.0)
    assert not claims.is_claimed()


def test_the_last_client_counts_not_the_first(claims: ClientClaims) -> None:
    claims.hold(ANN, 0.0)
    claims.attach(BOB, 0.0)
    claims.expire(HOLD)
    assert claims.is_claimed()
    claims.release(BOB, 31.0)
    claims.detach(BOB, 32.0)
    assert not claims.is_claimed()


def test_after_a_restart_anyone_may_come_back_within_the_hold(claims: ClientClaims) -> None:
    claims.hold_anonymous(0.0)
    assert claims.next_deadline() == HOLD
    claims.attach(ANN, 10.0)
    claims.drop(ANN)
    assert claims.is_claimed()
    claims.expire(HOLD)
    assert not claims.is_claimed()
    assert claims.next_deadline() is None


def test_the_next_deadline_is_the_earliest(claims: ClientClaims) -> None:
    claims.hold_anonymous(0.0)
    claims.hold(ANN, 5.0)
    claims.attach(BOB, 0.0)
    claims.detach(BOB, 6.0)
    assert claims.next_deadline() == 16.0


@pytest.mark.parametrize("before", [[], ["hold"], ["attach", "detach"], ["attach", "drop"]])
def test_the_current_session_needs_an_open_stream(claims: ClientClaims, before: list[str]) -> None:
    for step in before:
        STEPS[step](claims, 0.0)
    with pytest.raises(ClientNotAttached) as refused:
        claims.set_current_session(ANN, "s1")
    assert refused.value.client_id == ANN


def test_presence_counts_clients_and_not_streams(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.attach(ANN, 0.0)
    claims.attach(BOB, 0.0)
    claims.set_current_session(ANN, "s1")
    claims.set_current_session(BOB, "s1")
    assert claims.attached_clients("s1") == 2
    claims.set_current_session(BOB, "s2")
    assert (claims.attached_clients("s1"), claims.attached_clients("s2")) == (1, 1)


def test_an_empty_session_clears_presence(claims: ClientClaims) -> None:
    claims.attach(ANN, 0.0)
    claims.set_current_session(ANN, "s1")
    claims.set_current_session(ANN, "")
    assert claims.attached_clients("s1") == 0
    assert claims.attached_clients("") == 0


def test_statistics_are_a_snapshot(claims: ClientClaims) -> None:
    claims.hold(ANN, 0.0)
    claims.attach(BOB, 0.0)
    claims.attach(BOB, 0.0)
    claims.set_current_session(BOB, "s1")
    before = claims.statistics()
    claims.keep()
    assert before == ClaimStatistics(is_kept=False, clients=2, attached=1, streams=2, current_sessions=1)
    assert claims.statistics().is_kept


# --- every sequence ---

STEPS: dict[str, Callable[[ClientClaims, float], None]] = {
    "hold": lambda claims, now: claims.hold(ANN, now),
    "attach": lambda claims, now: claims.attach(ANN, now),
    "detach": lambda claims, now: claims.detach(ANN, now),
    "release": lambda claims, now: claims.release(ANN, now),
    "drop": lambda claims, now: claims.drop(ANN),
    "short": lambda claims, now: claims.expire(now),  # after a moment
    "grace": lambda claims, now: claims.expire(now),  # after a grace
    "hold's end": lambda claims, now: claims.expire(now),  # after a hold
}
PASSES = {"short": 1.0, "grace": GRACE, "hold's end": HOLD}


def holds_until(history: tuple[tuple[str, float], ...]) -> float:
    """The specification, told from the history alone: how long after all this one client's claim lasts.

    -inf: there is none; +inf: until something happens.
    """
    streams = orphans = 0
    released = False
    until = -math.inf
    for step, now in history:
        if until <= now and step in PASSES:
            until, released = -math.inf, False
        claimed = until > -math.inf
        if step == "hold":
            released = False
            until = until if streams else now + HOLD
        elif step == "attach":
            streams, until = streams + 1, math.inf
        elif step == "detach" and orphans:
            orphans -= 1
        elif step == "detach" and streams:
            streams -= 1
            if not streams:
                until, released = (-math.inf if released else now + GRACE), False
        elif step == "release" and claimed:
            released = streams > 0
            until = until if streams else -math.inf
        elif step == "drop":
            orphans, streams, until, released = orphans + streams, 0, -math.inf, False
    return until


def histories(depth: int) -> Iterator[tuple[tuple[tuple[str, float], ...], ClientClaims]]:
    """Every history of up to `depth` steps, with the claims that went through it."""
    unfinished: list[tuple[tuple[tuple[str, float], ...], ClientClaims, float]] = [
        ((), ClientClaims(create_hold_s=HOLD, detach_grace_s=GRACE), 0.0)
    ]
    while unfinished:
        history, claims, now = unfinished.pop()
        yield history, claims
        if len(history) == depth:
            continue
        for name, step in STEPS.items():
            after, later = copy.deepcopy(claims), now + PASSES.get(name, 0.0)
            step(after, later)
            unfinished.append(((*history, (name, later)), after, later))


def test_every_sequence_of_five_steps_claims_exactly_as_specified() -> None:
    explored = 0
    for history, claims in histories(depth=5):
        until = holds_until(history)
        assert claims.is_claimed() == (until > -math.inf), history
        assert claims.next_deadline() == (until if math.isfinite(until) else None), history
        assert (claims.statistics().streams > 0) == (until == math.inf), history
        explored += 1
    assert explored == sum(len(STEPS) ** length for length in range(6))


steps = st.lists(st.tuples(st.sampled_from([ANN, BOB]), st.sampled_from(sorted(STEPS))), max_size=30)


@given(steps)
def test_clients_never_touch_each_other(script: list[tuple[ClientId, str]]) -> None:
    together = ClientClaims(create_hold_s=HOLD, detach_grace_s=GRACE)
    alone = {each: ClientClaims(create_hold_s=HOLD, detach_grace_s=GRACE) for each in (ANN, BOB)}
    now = 0.0
    for client, name in script:
        now += PASSES.get(name, 0.0)
        if name in PASSES:
            for each in (together, *alone.values()):
                each.expire(now)
        else:
            act(together, client, name, now)
            act(alone[client], client, name, now)
        assert together.is_claimed() == any(each.is_claimed() for each in alone.values())
        assert together.statistics().streams == sum(each.statistics().streams for each in alone.values())


@given(steps)
def test_whatever_happened_an_abandoned_workspace_is_given_up(script: list[tuple[ClientId, str]]) -> None:
    claims = ClientClaims(create_hold_s=HOLD, detach_grace_s=GRACE)
    claims.hold_anonymous(0.0)
    now = 0.0
    for client, name in script:
        now += PASSES.get(name, 0.0)
        act(claims, client, name, now)
    while claims.statistics().streams:
        claims.detach(ANN, now)
        claims.detach(BOB, now)
    claims.expire(now + HOLD)
    assert not claims.is_claimed()
    assert claims.next_deadline() is None


def act(claims: ClientClaims, client: ClientId, name: str, now: float) -> None:
    """One step of a script, in the name of a client."""
    if name in PASSES:
        claims.expire(now)
    elif name == "drop":
        claims.drop(client)
    else:
        getattr(claims, name)(client, now)

"""Steering: how runs are taken into the active turn of another, and how they come back."""

import pytest

from engine.records.run import IfBusy
from engine.runs.accepted import Stage
from engine.runs.dispatch import DispatchStatistics
from tests.engine.runs.handles import Lane, handle


@pytest.fixture
def lane() -> Lane:
    return Lane()


def test_steering_takes_the_parked_runs_that_want_it_in_order(lane: Lane) -> None:
    host, first = lane.start(), lane.park(IfBusy.STEER)
    waiting, second = lane.park(), lane.park(IfBusy.STEER)
    entering = lane.reserve(IfBusy.STEER)
    assert lane.dispatch.take_steered(host) == (first, second)
    assert [run.steered_into for run in (first, second)] == [host.record.id] * 2
    assert lane.dispatch.queue() == (waiting, entering)
    assert lane.dispatch.turn_members() == (host, first, second)
    assert lane.dispatch.statistics() == DispatchStatistics(entering=1, queued=1, folded=2, is_active=True)
    assert lane.dispatch.take_steered(host) == ()


def test_nobody_is_steered_into_a_turn_that_is_canceled_held_or_not_the_active_one(lane: Lane) -> None:
    host, steered = lane.start(), lane.park(IfBusy.STEER)
    assert lane.dispatch.take_steered(steered) == ()
    lane.dispatch.cancel_runs((host,), "stop")
    assert lane.dispatch.take_steered(host) == ()
    held = Lane()
    host = held.start()
    held.park(IfBusy.STEER)
    held.dispatch.hold()
    assert held.dispatch.take_steered(host) == ()


def test_nobody_is_steered_into_a_turn_that_is_about_to_be_interrupted(lane: Lane) -> None:
    host, steered = lane.start(), lane.park(IfBusy.STEER)
    interrupting = lane.reserve(IfBusy.INTERRUPT)
    assert lane.dispatch.take_steered(host) == ()
    lane.dispatch.withdraw(interrupting)
    assert lane.dispatch.take_steered(host) == (steered,)


def test_steered_runs_end_with_their_host(lane: Lane) -> None:
    host, steered, behind = lane.start(), lane.park(IfBusy.STEER), lane.park()
    lane.dispatch.take_steered(host)
    assert lane.dispatch.unfold(host) == ((steered,), ())
    assert steered.stage is Stage.GONE
    assert lane.dispatch.leave(host) is behind


def test_steered_runs_go_back_in_their_place_when_their_host_is_canceled_alone(lane: Lane) -> None:
    host, first, second, third = lane.start(), lane.park(IfBusy.STEER), lane.park(), lane.park(IfBusy.STEER)
    lane.dispatch.take_steered(host)
    assert lane.dispatch.cancel_runs((host,), "stop").orphaned == ()
    assert lane.dispatch.unfold(host) == ((), (first, third))
    assert [run.steered_into for run in (first, third)] == [None, None]
    assert lane.dispatch.queue() == (first, second, third)
    assert lane.dispatch.leave(host) is first


def test_steered_run_that_is_canceled_alone_leaves_its_host(lane: Lane) -> None:
    host, steered = lane.start(), lane.park(IfBusy.STEER)
    lane.dispatch.take_steered(host)
    assert lane.dispatch.cancel_runs((steered,), "stop").orphaned == (steered,)
    assert lane.dispatch.unfold(host) == ((), ())
    assert not host.is_canceled


def test_cancel_of_the_session_leaves_steered_runs_to_their_host(lane: Lane) -> None:
    host, steered = lane.start(), lane.park(IfBusy.STEER)
    lane.dispatch.take_steered(host)
    canceled = lane.dispatch.cancel("stop")
    assert (canceled.covered, canceled.orphaned) == ((host, steered), ())
    assert lane.dispatch.unfold(host) == ((steered,), ())


def test_unfolding_of_a_run_that_does_not_hold_the_lane_changes_nothing(lane: Lane) -> None:
    host, steered = lane.start(), lane.park(IfBusy.STEER)
    lane.dispatch.take_steered(host)
    assert lane.dispatch.unfold(handle(9)) == ((), ())
    assert lane.dispatch.turn_members() == (host, steered)


def test_given_back_runs_wait_again_in_their_place(lane: Lane) -> None:
    host, first, second = lane.start(), lane.park(IfBusy.STEER), lane.park()
    lane.dispatch.give_back(lane.dispatch.take_steered(host))
    assert lane.dispatch.queue() == (first, second)
    assert (first.stage, first.steered_into) == (Stage.QUEUED, None)

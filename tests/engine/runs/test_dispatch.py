"""The lane, method by method; steering has a file of its own. How they work together is explored in
`test_dispatch_exploration.py`."""

import pytest

from engine.errors import QueueFull, SessionBusy
from engine.records.run import IfBusy
from engine.runs.accepted import Stage
from engine.runs.dispatch import DispatchStatistics, Entry
from tests.engine.runs.handles import Lane, handle


@pytest.fixture
def lane() -> Lane:
    return Lane()


# -- reserve and withdraw ----------------------------------------------------------------------------------------------


def test_reserved_run_is_entering_and_the_lane_is_not_idle(lane: Lane) -> None:
    run = lane.reserve()
    assert run.stage is Stage.ENTERING
    assert not lane.dispatch.is_idle
    assert lane.dispatch.statistics() == DispatchStatistics(entering=1, queued=0, folded=0, is_active=False)


@pytest.mark.parametrize("before", ["reserve", "start"])
def test_reject_is_refused_behind_any_run(lane: Lane, before: str) -> None:
    getattr(lane, before)()
    statistics = lane.dispatch.statistics()
    with pytest.raises(SessionBusy):
        lane.reserve(IfBusy.REJECT)
    assert lane.dispatch.statistics() == statistics


def test_reject_is_taken_by_an_idle_lane(lane: Lane) -> None:
    first = lane.start()
    lane.dispatch.leave(first)
    run = lane.reserve(IfBusy.REJECT)
    assert lane.dispatch.enter(run) is Entry.START


def test_bound_counts_what_waits_and_not_what_is_active() -> None:
    lane = Lane(queue_limit=2)
    lane.start()
    lane.park()
    lane.reserve()
    with pytest.raises(QueueFull) as refused:
        lane.reserve()
    assert refused.value.limit == 2
    assert lane.dispatch.statistics() == DispatchStatistics(entering=1, queued=1, folded=0, is_active=True)


def test_readmitted_run_is_taken_whatever_the_bound() -> None:
    lane = Lane(queue_limit=0)
    for seq in (1, 2, 3):
        lane.dispatch.readmit(handle(seq))
    assert lane.dispatch.statistics().entering == 3


def test_interrupt_names_every_run_before_it_and_flags_none_yet(lane: Lane) -> None:
    active, parked, entering = lane.start(), lane.park(), lane.reserve()
    run = handle(9, IfBusy.INTERRUPT)
    assert lane.dispatch.reserve(run) == (active, parked, entering)
    assert not any(one.is_canceled for one in (active, parked, entering, run))


@pytest.mark.parametrize("policy", [IfBusy.ENQUEUE, IfBusy.STEER])
def test_other_policies_interrupt_nobody(lane: Lane, policy: IfBusy) -> None:
    lane.start()
    assert lane.dispatch.reserve(handle(2, policy)) == ()


def test_withdrawn_run_leaves_nothing_behind(lane: Lane) -> None:
    run = lane.reserve()
    assert lane.dispatch.withdraw(run) is None
    assert lane.dispatch.is_idle
    assert run.stage is Stage.GONE


def test_withdrawing_hands_over_the_run_that_was_parked_behind(lane: Lane) -> None:
    first = lane.reserve()
    second = lane.park()
    assert lane.dispatch.withdraw(first) is second
    assert lane.dispatch.active is second


def test_withdrawing_hands_over_nobody_who_enters_by_itself(lane: Lane) -> None:
    first, second = lane.reserve(), lane.reserve()
    assert lane.dispatch.withdraw(first) is None
    assert lane.dispatch.enter(second) is Entry.START


# -- enter and leave ---------------------------------------------------------------------------------------------------


def test_first_run_starts_and_is_active(lane: Lane) -> None:
    run = lane.start()
    assert lane.dispatch.active is run
    assert run.stage is Stage.ACTIVE


def test_run_behind_an_active_one_is_queued_and_taken_over_when_that_leaves(lane: Lane) -> None:
    first, second, third = lane.start(), lane.park(), lane.park()
    assert lane.dispatch.leave(first) is second
    assert lane.dispatch.active is second
    assert lane.dispatch.leave(second) is third
    assert lane.dispatch.leave(third) is None
    assert lane.dispatch.is_idle


def test_run_that_enters_before_an_earlier_one_waits_for_it(lane: Lane) -> None:
    first = lane.reserve()
    second = lane.park()
    assert lane.dispatch.enter(first) is Entry.START
    assert lane.dispatch.leave(first) is second


def test_leaving_takes_nobody_over_past_a_run_that_is_still_entering(lane: Lane) -> None:
    active, entering, parked = lane.start(), lane.reserve(), lane.park()
    assert lane.dispatch.leave(active) is None
    assert lane.dispatch.enter(entering) is Entry.START
    assert lane.dispatch.leave(entering) is parked


def test_canceled_run_that_enters_first_holds_the_lane_until_it_leaves(lane: Lane) -> None:
    first = lane.reserve()
    lane.dispatch.cancel("stop")
    second = lane.reserve()
    assert lane.dispatch.enter(first) is Entry.CANCELED
    assert lane.dispatch.enter(second) is Entry.QUEUED
    assert lane.dispatch.leave(first) is second


def test_canceled_run_that_enters_behind_another_leaves_the_lane_at_once(lane: Lane) -> None:
    active = lane.start()
    canceled, behind = lane.reserve(), lane.park()
    lane.dispatch.cancel_runs((canceled,), "stop")
    assert lane.dispatch.enter(canceled) is Entry.CANCELED
    assert lane.dispatch.active is active
    assert lane.dispatch.leave(canceled) is None
    assert lane.dispatch.leave(active) is behind


# -- cancel ------------------------------------------------------------------------------------------------------------


def test_cancel_flags_every_run_and_names_them_in_order(lane: Lane) -> None:
    runs = (lane.start(), lane.park(), lane.reserve())
    canceled = lane.dispatch.cancel("stop")
    assert canceled.covered == runs
    assert [run.cancel_reason for run in runs] == ["stop"] * 3


def test_cancel_takes_out_those_whom_nobody_runs_and_no_others(lane: Lane) -> None:
    active, parked, entering = lane.start(), lane.park(), lane.reserve()
    assert lane.dispatch.cancel("stop").orphaned == (parked,)
    assert [run.stage for run in (active, parked, entering)] == [Stage.ACTIVE, Stage.GONE, Stage.ENTERING]
    assert lane.dispatch.statistics() == DispatchStatistics(entering=1, queued=0, folded=0, is_active=True)


def test_cancel_of_an_idle_lane_covers_nobody_and_does_not_stick(lane: Lane) -> None:
    assert lane.dispatch.cancel("stop").covered == ()
    assert not lane.start().is_canceled


def test_second_cancel_covers_the_same_runs_and_keeps_the_first_reason(lane: Lane) -> None:
    active = lane.start()
    lane.dispatch.cancel("first")
    again = lane.dispatch.cancel("second")
    assert (again.covered, again.orphaned) == ((active,), ())
    assert active.cancel_reason == "first"


def test_cancel_of_some_runs_flags_those_alone(lane: Lane) -> None:
    active, first, second, third = lane.start(), lane.park(), lane.park(), lane.park()
    canceled = lane.dispatch.cancel_runs((first, third), "stop")
    assert canceled.covered == canceled.orphaned == (first, third)
    assert not active.is_canceled
    assert lane.dispatch.leave(active) is second


def test_cancel_of_a_run_that_has_left_covers_nobody(lane: Lane) -> None:
    run = lane.start()
    lane.dispatch.leave(run)
    assert lane.dispatch.cancel_runs((run,), "stop").covered == ()
    assert not run.is_canceled


def test_cancel_reaches_the_active_run(lane: Lane) -> None:
    run, reached = lane.start(), []
    run.bind(lambda: reached.append("now"))
    lane.dispatch.cancel("stop")
    lane.dispatch.cancel("stop")
    assert reached == ["now"]


# -- the queue ---------------------------------------------------------------------------------------------------------


def test_queue_is_what_waits_behind_another_run(lane: Lane) -> None:
    assert lane.dispatch.queue() == ()
    first = lane.reserve()
    assert lane.dispatch.queue() == ()
    second = lane.reserve()
    assert lane.dispatch.queue() == (second,)
    assert lane.dispatch.enter(first) is Entry.START
    assert lane.dispatch.queue() == (second,)


def test_queue_of_a_held_lane_is_all_that_waits(lane: Lane) -> None:
    first, second = lane.reserve(), lane.reserve()
    lane.dispatch.hold()
    assert lane.dispatch.queue() == (first, second)


def test_clearing_the_queue_leaves_the_active_run_and_the_one_about_to_start_alone(lane: Lane) -> None:
    about_to_start, second = lane.reserve(), lane.park()
    assert lane.dispatch.clear_queue("cleared").covered == (second,)
    assert lane.dispatch.enter(about_to_start) is Entry.START
    third, entering = lane.park(), lane.reserve()
    cleared = lane.dispatch.clear_queue("cleared")
    assert (cleared.covered, cleared.orphaned) == ((third, entering), (third,))
    assert not about_to_start.is_canceled


# -- hold --------------------------------------------------------------------------------------------------------------


def test_held_lane_starts_nobody(lane: Lane) -> None:
    active, parked, entering = lane.start(), lane.park(), lane.reserve()
    lane.dispatch.hold()
    assert lane.dispatch.enter(entering) is Entry.QUEUED
    assert lane.dispatch.leave(active) is None
    assert lane.dispatch.queue() == (parked, entering)


def test_held_lane_still_ends_what_is_canceled(lane: Lane) -> None:
    active, parked, entering = lane.start(), lane.park(), lane.reserve()
    lane.dispatch.hold()
    assert lane.dispatch.cancel("closed").orphaned == (parked,)
    assert lane.dispatch.enter(entering) is Entry.CANCELED
    lane.dispatch.leave(entering)
    assert lane.dispatch.leave(active) is None
    assert lane.dispatch.is_idle

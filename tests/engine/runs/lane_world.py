"""A lane and everybody who touches it, as a world that can be copied and stepped: no event loop, no time, no store.

Each actor is a little program over the real SessionDispatch and the real handles, cut where the engine has a
checkpoint: what stands between two cuts is one step. `explore` takes every step that is possible in every state that
can be reached, and asks of each state where nobody can go on whether it is what was promised.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from engine.errors import SessionBusy
from engine.records.run import IfBusy
from engine.runs.accepted import AcceptedRun, Stage
from engine.runs.dispatch import Cancellation, Entry, SessionDispatch
from tests.engine.runs.handles import handle

NOBODY = -1
SLOTS: tuple[Any, ...] = tuple(getattr(AcceptedRun, name) for name in AcceptedRun.__slots__)


class Actor(NamedTuple):
    """Somebody with something left to do: `at` says what, `run` with which run."""

    who: str
    at: str
    run: int = NOBODY


class Scenario(NamedTuple):
    """Who takes part. Which prompt's commit fails, and which run is canceled alone, is tried in every way."""

    policies: tuple[IfBusy, ...]
    end: str = ""  # "close", "stop" or neither
    session_cancels: int = 1
    run_cancels: int = 1
    failures: int = 1


class World:
    """A lane in the middle of things. `covered` is what a cancel had to reach, worked out from the contract alone.

    It keeps no history: what a run came to is judged when it ends, so that worlds that can be told apart only by their
    past are one.
    """

    def __init__(self, scenario: Scenario, dispatch: SessionDispatch) -> None:
        self.scenario = scenario
        self.dispatch = dispatch
        self.runs: list[AcceptedRun] = []
        self.failures_left = scenario.failures
        self.is_closed = False
        self.live: frozenset[int] = frozenset()  # registered, and not at an end
        self.covered: frozenset[int] = frozenset()  # of the live ones
        self.to_interrupt: tuple[tuple[int, ...], ...] = ()  # by run, as the lane has it
        self.must_interrupt: tuple[frozenset[int], ...] = ()  # by run, as it ought to be
        self.last_started = NOBODY
        self.problem = ""
        prompts = [Actor("prompt", f"send {policy}") for policy in scenario.policies]
        session_cancels = [Actor("cancel session", "cancel")] * scenario.session_cancels
        run_cancels = [Actor("cancel run", "cancel")] * scenario.run_cancels
        end = [Actor(scenario.end, "end")] if scenario.end else []
        self.actors: tuple[Actor, ...] = (*prompts, *session_cancels, *run_cancels, *end)

    def copy(self) -> "World":
        """A world of its own in the same state."""
        twin: World = object.__new__(World)
        twin.__dict__.update(self.__dict__)
        twins = {run: copy_handle(run) if run.stage is not Stage.GONE else run for run in self.runs}
        twin.runs = [twins[run] for run in self.runs]
        twin.dispatch = object.__new__(type(self.dispatch))
        attributes = twin.dispatch.__dict__
        for name, value in self.dispatch.__dict__.items():
            if isinstance(value, list):
                attributes[name] = [twins[run] for run in value]
            else:
                attributes[name] = twins[value] if isinstance(value, AcceptedRun) else value
        return twin

    def key(self) -> tuple[object, ...]:
        """Two worlds with the same key go on in the same ways."""
        lane: list[object] = []
        for value in self.dispatch.__dict__.values():
            if isinstance(value, list):
                lane.append(tuple([run.record.seq for run in value]))
            else:
                lane.append(value.record.seq if isinstance(value, AcceptedRun) else value)
        handles = tuple(
            [
                (run.record.prompt.if_busy, run.stage, run.is_canceled, run.parked, run.has_begun)
                if number in self.live
                else run.stage
                for number, run in enumerate(self.runs)
            ]
        )
        mine = (self.live, self.covered, self.to_interrupt, self.must_interrupt, self.last_started, self.failures_left)
        return (tuple(sorted(self.actors)), handles, tuple(lane), mine, self.is_closed, self.problem)

    def options(self) -> Iterator[tuple[Actor, str]]:
        """Who can go on, and in which way."""
        for actor in dict.fromkeys(self.actors):
            if actor.at == "decide":
                yield actor, "accepted"
                if self.failures_left:
                    yield actor, "refused"
            elif actor.who == "cancel run":
                for number in range(len(self.runs)):
                    yield actor, str(number)
                if not any(other.at.startswith("send") for other in self.actors):
                    yield actor, "nobody"
            elif actor.at == "answer":
                yield actor, "on"
                yield actor, "next step"
            else:
                yield actor, ""

    def step(self, actor: Actor, choice: str) -> None:
        """Let an actor do what stands between two checkpoints."""
        actors = list(self.actors)
        actors.remove(actor)
        verb, _, argument = actor.at.partition(" ")
        program = getattr(self, f"_{verb}")
        following: list[Actor] = program(actor, choice or argument)
        self.actors = (*actors, *following)

    # -- what a prompt and its run task do ------------------------------------------------------------------------

    def _send(self, actor: Actor, if_busy: str) -> list[Actor]:
        """Registered, or refused, in one step with the checks (R01, R04, R15)."""
        policy = IfBusy(if_busy)
        run = handle(len(self.runs) + 1, policy)
        if self.is_closed:
            return []
        try:
            interrupted = self.dispatch.reserve(run)
        except SessionBusy:
            if not self.runs or policy is not IfBusy.REJECT:
                self.problem = "a prompt was refused without a reason (R15)"
            return []
        if policy is IfBusy.REJECT and any(not self.runs[one].is_canceled for one in self.live):
            self.problem = "a prompt that asked to be rejected was accepted by a busy session (R15)"
        self.to_interrupt = (*self.to_interrupt, tuple(sorted(self.runs.index(one) for one in interrupted)))
        self.must_interrupt = (*self.must_interrupt, self.live if policy is IfBusy.INTERRUPT else frozenset())
        self.runs.append(run)
        self.live |= {len(self.runs) - 1}
        return [Actor("prompt", "decide", len(self.runs) - 1)]

    def _decide(self, actor: Actor, choice: str) -> list[Actor]:
        """The commit is known. If it failed, the run is withdrawn; else it flags whom it interrupts, and enters."""
        run = self.runs[actor.run]
        if choice == "refused":
            self.failures_left -= 1
            self._end_as(actor.run, "refused")
            return self._go_on(self.dispatch.withdraw(run))
        flagged = [self.runs[one] for one in self.to_interrupt[actor.run]]
        self._expect(self.must_interrupt[actor.run])
        if flagged:
            self._end_orphans(self.dispatch.cancel_runs(flagged, "interrupted"))
        entry = self.dispatch.enter(run)
        if entry is Entry.QUEUED:
            return []
        if entry is Entry.CANCELED:  # its canceled turn is written, and then it leaves (R09)
            self._end_as(actor.run, "canceled")
        return [Actor("task", "begin" if entry is Entry.START else "leave", actor.run)]

    def _begin(self, actor: Actor, _: str) -> list[Actor]:
        """It has its slot. What was canceled or parked meanwhile does not begin."""
        run = self.runs[actor.run]
        if not run.is_free:
            return self._settle(actor, "")
        run.has_begun = True
        if actor.run < self.last_started:
            self.problem = f"run {actor.run} started after run {self.last_started} (R14)"
        self.last_started = actor.run
        return [actor._replace(at="answer")]

    def _answer(self, actor: Actor, choice: str) -> list[Actor]:
        """The agent takes another step, with whoever wants to steer, or comes to its end."""
        if choice == "next step":
            taken = self.dispatch.take_steered(self.runs[actor.run])
            if any(run.is_canceled or run.stage is not Stage.FOLDED for run in taken):
                self.problem = "a run was taken in that could not be (R15)"
            return [actor._replace(at="settle")]
        return self._settle(actor, "")

    def _settle(self, actor: Actor, _: str) -> list[Actor]:
        """What the run came to is decided; its writing takes a while, and then it leaves."""
        run = self.runs[actor.run]
        ending, returning = self.dispatch.unfold(run) if run.has_begun else ((), ())
        is_kept = not run.is_canceled and not run.has_begun
        outcome = "canceled" if run.is_canceled else "kept" if is_kept else "completed"
        self._end_as(actor.run, outcome)
        for one in ending:
            self._end_as(self.runs.index(one), "canceled" if one.is_canceled else outcome)
        if any(one.stage is not Stage.QUEUED for one in returning):
            self.problem = "a run that was given back is not in the queue"
        return [actor._replace(at="leave")]

    def _leave(self, actor: Actor, _: str) -> list[Actor]:
        """It is over, and the task takes the next one over in the same step."""
        return self._go_on(self.dispatch.leave(self.runs[actor.run]))

    def _go_on(self, following: AcceptedRun | None) -> list[Actor]:
        return [] if following is None else [Actor("task", "begin", self.runs.index(following))]

    # -- what others do -------------------------------------------------------------------------------------------

    def _cancel(self, actor: Actor, choice: str) -> list[Actor]:
        """A cancel of the session, or of one run."""
        if actor.who == "cancel session":
            self._expect(self.live)
            self._end_orphans(self.dispatch.cancel("canceled"))
            return []
        if choice == "nobody" or int(choice) not in self.live:
            return []
        self._expect(frozenset({int(choice)}))
        self._end_orphans(self.dispatch.cancel_runs((self.runs[int(choice)],), "canceled"))
        return []

    def _end(self, actor: Actor, _: str) -> list[Actor]:
        """The workspace closes, and cancels (R23); or the server stops, and keeps what has not begun (R24)."""
        self.is_closed = True
        self.dispatch.hold()
        if actor.who == "close":
            self._expect(self.live)
            self._end_orphans(self.dispatch.cancel("closed"))
            return []
        for run in self.runs:
            run.park()
        return []

    def _end_orphans(self, cancellation: Cancellation) -> None:
        """Canceled runs that nobody ran: a task of its own ends each; it has left the lane, so when does not matter."""
        for run in cancellation.orphaned:
            self._end_as(self.runs.index(run), "canceled")

    # -- what was promised ----------------------------------------------------------------------------------------

    def _expect(self, runs: frozenset[int]) -> None:
        self.covered |= runs & self.live

    def _end_as(self, number: int, outcome: str) -> None:
        """A run has come to an end: refused, completed, canceled, or kept for the next start."""
        if number not in self.live:
            self.problem = f"run {number} ended twice (R18)"
        elif outcome == "kept" and not (self.is_closed and self.scenario.end == "stop"):
            self.problem = f"run {number} was left, and nobody stops the server (R18)"
        elif outcome == "refused":
            if number == self.last_started:
                self.problem = f"run {number} was refused, and had started (R02)"
        elif (outcome == "canceled") is not (number in self.covered):
            was = "was" if number in self.covered else "was not"
            self.problem = f"run {number} ended {outcome}, and {was} canceled (R07, R08)"
        self.live -= {number}
        self.covered -= {number}

    def check(self) -> str:
        """What is wrong with a world in which nobody can go on; empty if nothing is."""
        keeps = self.scenario.end == "stop" and self.is_closed
        if self.problem:
            return self.problem
        if self.covered:
            return f"the runs {set(self.covered)} were canceled, and never ended (R07)"
        if self.live and not keeps:
            return f"the runs {set(self.live)} never ended (R18)"
        if any(run.stage is not Stage.GONE for number, run in enumerate(self.runs) if number not in self.live):
            return "a run that has ended is still in its lane"
        if self.dispatch.active is not None or (not keeps and not self.dispatch.is_idle):
            return "the lane is not idle"
        return ""

    def check_now(self) -> str:
        """What is wrong with a world in the middle of things."""
        active = [run for run in self.runs if run.stage is Stage.ACTIVE]
        if len(active) > 1 or (active and self.dispatch.active is not active[0]):
            return "more than one run holds the lane (R14)"
        return self.problem


def copy_handle(run: AcceptedRun) -> AcceptedRun:
    """A handle of its own in the same state. Its events are never waited for here, and may be shared."""
    twin = AcceptedRun.__new__(AcceptedRun)
    for slot in SLOTS:
        slot.__set__(twin, slot.__get__(run))
    return twin


class Exploration(NamedTuple):
    """What was found: `problem` with the steps that lead to it, or the number of states and of ways through them."""

    states: int
    interleavings: int
    problem: str = ""
    trace: tuple[str, ...] = ()


def explore(scenario: Scenario, make: Callable[[], SessionDispatch]) -> Exploration:
    """Take every step in every state."""
    ways: dict[tuple[object, ...], int] = {}
    trace: list[tuple[Actor, str]] = []

    def visit(world: World) -> int:
        key = world.key()
        if key in ways:
            return ways[key]
        options = list(world.options())
        problem = world.check_now() if options else world.check()
        if problem:
            raise Found(
                problem, tuple(f"{actor.who}: {actor.at} {choice} (run {actor.run})" for actor, choice in trace)
            )
        count = 0 if options else 1
        for actor, choice in options:
            trace.append((actor, choice))
            after = world.copy()
            try:
                after.step(actor, choice)
            except (LookupError, ValueError) as error:
                after.problem = f"the lane crashed: {error!r}"
            count += visit(after)
            trace.pop()
        ways[key] = count
        return count

    try:
        total = visit(World(scenario, make()))
    except Found as found:
        return Exploration(len(ways), 0, found.problem, found.trace)
    return Exploration(len(ways), total)


class Found(Exception):
    """A world that breaks a promise."""

    def __init__(self, problem: str, trace: tuple[str, ...]) -> None:
        super().__init__(problem)
        self.problem = problem
        self.trace = trace

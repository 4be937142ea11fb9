"""The agents of a scenario. What one does is a script: a word for each step, some with a number behind a colon."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec
import trio

from engine.agents.calls import GivenCall, run_calls
from engine.agents.protocol import Turn
from engine.errors import ModelError
from engine.records.run import Usage
from engine.tools.agent import AgentTool
from engine.tools.question import QuestionTool
from tests.explorer.ledger import sub_prompt
from tests.explorer.toolbox import ChangeTool, JobTool, ViewTool, WaitTool

if TYPE_CHECKING:
    from tests.explorer.world import World

Step = Callable[[Turn, int], Awaitable[None] | None]
STEPS: dict[str, Step] = {}


def step(function: Step) -> Step:
    """A word of scripts. Its second argument is the number behind the colon, or 0."""
    STEPS[function.__name__] = function
    return function


@step
def say(turn: Turn, length: int) -> None:
    """Some words."""
    turn.say("word " * max(length, 1))


@step
def think(turn: Turn, signed: int) -> None:
    """Some thoughts."""
    turn.think("hm ", "signed" if signed else "")


@step
async def call(turn: Turn, duration: int) -> None:
    """A tool call that takes so many milliseconds."""
    await _call(turn, WaitTool.name, f'{{"ms": {duration}}}')


@step
async def change(turn: Turn, duration: int) -> None:
    """A tool call that asks for permission first, and then takes so many milliseconds."""
    await _call(turn, ChangeTool.name, f'{{"ms": {duration}}}')


@step
async def question(turn: Turn, _: int) -> None:
    """A tool call that asks the person something."""
    asked = {"type": "yes_no", "question": "Shall I?", "description": "It matters."}
    await _call(turn, QuestionTool.name, msgspec.json.encode({"questions": [asked]}).decode())


@step
async def job(turn: Turn, _: int) -> None:
    """A tool call that leaves something running."""
    await _call(turn, JobTool.name, "{}")


@step
async def look(turn: Turn, duration: int) -> None:
    """A tool call that a sub-agent may make too, and that takes so many milliseconds."""
    await _call(turn, ViewTool.name, f'{{"ms": {duration}}}')


@step
async def peek(turn: Turn, duration: int) -> None:
    """The same, which asks for permission first."""
    await _call(turn, ViewTool.name, f'{{"ms": {duration}, "asks": true}}')


@step
async def agents(turn: Turn, number: int) -> None:
    """So many sub-agents side by side. What they do are the scripts that came with the prompt."""
    calls: list[GivenCall] = []
    for each in range(number):
        given = msgspec.json.encode({"prompt": sub_prompt(turn.prompt.text, each)}).decode()
        call_id = _new_call(turn, AgentTool.name, given)
        await trio.lowlevel.checkpoint()
        calls.append((turn.end_tool_call(call_id), given))
    await run_calls(turn, calls)


@step
async def reject(turn: Turn, _: int) -> None:
    """A tool call that is not made."""
    await turn.reject_tool_call(turn.end_tool_call(_new_call(turn)), "no")


@step
def half(turn: Turn, _: int) -> None:
    """A tool call that is never complete."""
    _new_call(turn)


@step
async def further(turn: Turn, _: int) -> None:
    """Another message."""
    await turn.next_step()


@step
async def steered(turn: Turn, _: int) -> None:
    """Take in what was steered."""
    await turn.steered()


@step
def reset(turn: Turn, _: int) -> None:
    """Take everything back."""
    if not turn.message.tool_calls:
        turn.reset()


@step
def use(turn: Turn, tokens: int) -> None:
    """Account for some tokens."""
    turn.use(usage_of(tokens))


@step
async def turns(_: Turn, number: int) -> None:
    """Let others run."""
    for _number in range(number):
        await trio.lowlevel.checkpoint()


@step
async def ms(_: Turn, duration: int) -> None:
    """Wait for the model."""
    await trio.sleep(duration / 1000)


@step
def fail(_: Turn, __: int) -> None:
    """The model fails."""
    raise ModelError("server", "The model failed", "says the scenario")


@step
def bug(_: Turn, __: int) -> None:
    """The agent fails."""
    raise ValueError("the agent has a bug, says the scenario")


@step
def leave(_: Turn, __: int) -> None:
    """The agent wants to end the process."""
    raise SystemExit(1)


@step
def garbage(turn: Turn, _: int) -> None:
    """The agent says what is no text."""
    turn.say(b"garbage")  # type: ignore[arg-type]


@step
async def stubborn(_: Turn, duration: int) -> None:
    """Go on for so many milliseconds, canceled or not."""
    with trio.move_on_after(duration / 1000, shield=True):
        await trio.sleep_forever()


@step
async def swallow(_: Turn, duration: int) -> None:
    """Wait; canceled, act as if nothing had happened."""
    with suppress(trio.Cancelled):
        await trio.sleep(duration / 1000)


@step
async def fall(_: Turn, duration: int) -> None:
    """Wait; canceled, fail."""
    try:
        await trio.sleep(duration / 1000)
    except trio.Cancelled:
        raise KeyError("failed while it was canceled, says the scenario") from None


REQUESTS = frozenset({"change", "question", "peek"})
STUBBORN = frozenset({"stubborn", "swallow", "fall"})  # with these, an agent that is told to stop may end as it likes


class ScriptAgent:
    """Implements `engine.agents.protocol.Agent`: answers each prompt by the script that came with it."""

    def __init__(self, world: "World") -> None:
        self._world = world

    async def respond(self, turn: Turn) -> None:
        """Play the script of the prompt."""
        with self._world.at_work(turn):
            for word in self._world.script(turn.prompt):
                name, _, number = word.partition(":")
                waiting = STEPS[name](turn, int(number or 0))
                if waiting is not None:
                    await waiting
                if name == use.__name__:
                    self._world.ledger.use(turn.run_id, turn.session_id, usage_of(int(number or 0)))
        await trio.lowlevel.checkpoint_if_cancelled()


def usage_of(tokens: int) -> Usage:
    """What a step of so many tokens takes."""
    return Usage(input_tokens=tokens, output_tokens=1, cost=0.5)


async def _call(turn: Turn, name: str, given: str) -> None:
    call_id = _new_call(turn, name, given)
    await trio.lowlevel.checkpoint()
    await turn.call_tool(turn.end_tool_call(call_id))


def _new_call(turn: Turn, name: str = WaitTool.name, given: str = "{}") -> str:
    call_id = f"call-{turn.message.id}-{len(turn.message.parts)}"
    turn.begin_tool_call(call_id, name)
    turn.append_tool_input(call_id, given)
    return call_id

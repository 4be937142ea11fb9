"""CoderAgent: the built-in agent. It loops a language model over the turn's tools until the model calls none."""

from collections.abc import Callable, Sequence
from pathlib import Path

import anyio.to_thread
import trio

from engine.agents.calls import run_calls
from engine.agents.context_files import ContextFile, read_context_files
from engine.agents.loop_guard import LoopGuard, why
from engine.agents.protocol import Turn
from engine.agents.step import Step
from engine.agents.summary import needs_summary, summarize
from engine.agents.system_prompt import system_prompt
from engine.agents.transcript import transcript
from engine.models.catalog import Models
from engine.models.protocol import LanguageModel, ModelRequest, ToolSpec
from engine.records.message import FinishReason
from engine.records.run import Purpose

MAX_STEPS = 200  # a turn that takes more has lost its way
IN_CIRCLES = "Stopped: the agent goes round in circles"


class CoderAgent:
    """Answers prompts with a language model. Implements `engine.agents.protocol.Agent`.

    `in_thread` reads files on a thread; not so in tests with a MockClock, which would jump beside it. `context_paths`
    says which files tell of a workspace beside those that are known by name.
    """

    def __init__(
        self, models: Models, *, in_thread: bool = True, context_paths: Callable[[Path], Sequence[str]] = lambda _: ()
    ) -> None:
        self._models = models
        self._context_paths = context_paths
        self._in_thread = in_thread

    async def respond(self, turn: Turn) -> None:
        """Take steps until the model stops calling tools. Raises ModelError and NotFound (no such model)."""
        model = self._models.get(turn.model)
        turn.speak_as(model.info.id, model.info.provider)
        context = await self._context(turn.workspace)
        guard = LoopGuard()
        if turn.prompt.purpose is Purpose.SUMMARIZE:
            await summarize(turn, model)
            return
        for _ in range(MAX_STEPS):
            step = await Step(turn, model, self._request(turn, model, context)).take()
            if not step.calls:
                turn.finish(step.reason)
                return
            results = await run_calls(turn, step.calls)
            if any(result.outcome.ends_turn for result in results):
                turn.finish(FinishReason.END_TURN)
                return
            if guard.sees_loop(results):
                turn.finish(
                    FinishReason.UNKNOWN, title="Stopped: the agent goes round in circles", details=why(results)
                )
                return
            if needs_summary(model.info, step.usage):
                await turn.next_step(is_summary=True)
                await summarize(turn, model)
            await turn.steered()
            await turn.next_step()
        await trio.lowlevel.checkpoint()
        turn.finish(FinishReason.UNKNOWN, title="Stopped", details=f"The turn took {MAX_STEPS} steps without an end.")

    def _request(self, turn: Turn, model: LanguageModel, context: tuple[ContextFile, ...]) -> ModelRequest:
        tools = tuple(ToolSpec(tool.name, tool.description, tool.parameters) for tool in turn.tools().values())
        return ModelRequest(
            session_id=turn.session_id,
            system=system_prompt(
                turn.workspace, has_tools=bool(tools), is_delegated=turn.prompt.purpose is Purpose.DELEGATED,
                context=context,
            ),
            messages=transcript(turn.history, model.info), tools=tools, max_tokens=model.info.default_max_tokens,
        )  # fmt: skip

    async def _context(self, root: Path) -> tuple[ContextFile, ...]:
        more = self._context_paths(root)
        if self._in_thread:
            return await anyio.to_thread.run_sync(read_context_files, root, more)
        await trio.lowlevel.checkpoint()
        return read_context_files(root, more)

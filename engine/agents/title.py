"""ModelTitler: finds a session's title with the small model."""

from collections.abc import Callable

from engine.agents.protocol import Title
from engine.agents.system_prompt import TITLE_PROMPT
from engine.models.catalog import Models
from engine.models.protocol import ModelMessage, ModelRequest, TextDelta, UsageReport
from engine.records.message import Text
from engine.records.run import Prompt, Usage

MAX_TOKENS = 40  # of a model that does not think; one that does would have none left for words
PROMPT_SHOWN = 2000  # characters of the prompt


class ModelTitler:
    """Asks the small model once, the one that is chosen then. Implements `engine.agents.protocol.Titler`."""

    def __init__(self, models: Models, small_name: Callable[[], str]) -> None:
        self._models = models
        self._small_name = small_name

    async def title(self, prompt: Prompt) -> Title:
        """A title in a few words. Raises ModelError."""
        model = self._models.get(self._small_name())
        said: list[str] = []
        usage = Usage()
        asked = ModelMessage(role="user", parts=(Text(prompt.text[:PROMPT_SHOWN]),))
        info = model.info
        request = ModelRequest(
            session_id=prompt.session_id, system=TITLE_PROMPT, messages=(asked,),
            max_tokens=info.default_max_tokens if info.can_reason else MAX_TOKENS,
            reasoning_effort=info.least_effort,
        )  # fmt: skip
        async with model.open_stream(request) as stream:
            async for batch in stream:
                for chunk in batch:
                    if isinstance(chunk, TextDelta):
                        said.append(chunk.text)
                    elif isinstance(chunk, UsageReport):
                        usage = chunk.usage
        cost = model.info.cost_of(usage)
        return Title("".join(said).strip().strip("\"'"), Usage(usage.input_tokens, usage.output_tokens, cost=cost))

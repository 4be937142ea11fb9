"""An agent that knows asyncio and nothing else. `agent` keeps every promise of the run contract all the same."""

import asyncio

from engine.agents.asyncio_agent import AsyncioTurn, asyncio_agent


async def read_slowly(text: str, words: asyncio.Queue[str]) -> None:
    """Stands for an asyncio client that takes its time."""
    for word in text.split():
        await asyncio.sleep(0.01)
        await words.put(word)


async def count_words(turn: AsyncioTurn) -> None:
    """Counts the words of the prompt while another task reads them."""
    words: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(read_slowly(turn.prompt.text, words))
        for number in range(1, len(turn.prompt.text.split()) + 1):
            turn.say(f"{number}. {await words.get()}\n")


agent = asyncio_agent(count_words)

"""The model under the machine's hand: it does what the words of each prompt say, and waits at `hold` for more."""

from collections import defaultdict

import trio

from engine.agents.protocol import Turn
from engine.records.message import Role
from tests.explorer.script import STEPS
from tests.machine.ledger import Ledger

HOLD = "hold"


class HeldModel:
    """Implements `engine.agents.protocol.Agent`. The first word of a prompt is its name, the others are its script."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._released: defaultdict[str, trio.Event] = defaultdict(trio.Event)
        self._answers: dict[str, tuple[str, ...]] = {}
        self._is_open = False

    async def respond(self, turn: Turn) -> None:
        """Play the script of the prompt."""
        history = frozenset(message.text for message in turn.history if message.role is Role.USER)
        self._ledger.ask(turn.run_id, turn.session_id, history)
        name, *script = turn.prompt.text.split()
        for word in script:
            await self._play(turn, name, word)
        await trio.lowlevel.checkpoint_if_cancelled()

    def release(self, name: str, answer: tuple[str, ...]) -> None:
        """Let the model answer this prompt, now or when it comes to it."""
        self._answers[name] = answer
        self._released[name].set()

    def release_all(self) -> None:
        """Let it answer everything from now on."""
        self._is_open = True
        for event in self._released.values():
            event.set()

    async def _play(self, turn: Turn, name: str, word: str) -> None:
        if word != HOLD:
            step, _, number = word.partition(":")
            waiting = STEPS[step](turn, int(number or 0))
            if waiting is not None:
                await waiting
            return
        released = self._released[name]
        if not self._is_open:
            await released.wait()
        for each in self._answers.get(name, ("say",)):
            await self._play(turn, name, each)

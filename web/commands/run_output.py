"""What `countermand run` shows: words as they come, or events as JSON; what is said about them goes to stderr."""

import re
import sys
from contextlib import ExitStack
from typing import Protocol

import click
import msgspec
import trio
from rich.console import Console

from engine.records.run import RunState
from web.client_run import RunReader, RunResult
from web.client_text import TextPiece
from web.commands.visible import visible

# What a model says may hold codes that move the cursor, change colors or rename windows.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class RunOutput(Protocol):
    """Shows a run to whoever asked for it."""

    def note(self, text: str) -> None:
        """Say something about the run."""
        ...

    def make_room(self) -> None:
        """A question is about to be shown on stderr, and the words of the run have to wait."""
        ...

    def go_on(self) -> None:
        """It was answered, or is not asked any more."""
        ...

    async def follow(self, run: RunReader) -> None:
        """Show the run until it has ended. Canceled, it can be called again, and goes on."""
        ...

    def finish(self, result: RunResult) -> None:
        """Say how it ended, if that needs saying."""
        ...


class PlainOutput:
    """The words on stdout, and no more than that."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._is_quiet = is_quiet
        self._is_terminal = sys.stdout.isatty()
        self._last: TextPiece | None = None
        self._ends_line = True
        self._waiting = ExitStack()
        self._kept: list[TextPiece] = []
        self._is_held = False

    def make_room(self) -> None:
        """End the line, and what moves on it."""
        self._waiting.close()
        self._end_line()
        self._is_held = True

    def go_on(self) -> None:
        """What was kept comes with the next words, or at the end."""
        self._is_held = False

    def note(self, text: str) -> None:
        """Say something about the run."""
        if not self._is_quiet:
            self._end_line()
            click.echo(f"countermand: {visible(text)}", err=True)

    async def follow(self, run: RunReader) -> None:
        """Show words until there are no more."""
        with self._waiting:
            if sys.stderr.isatty() and not self._is_quiet and self._last is None:
                self._waiting.enter_context(Console(stderr=True).status("waiting for the answer …"))
            async for piece in run:
                self._kept.append(piece)
                if not self._is_held:
                    await self._show_kept()
            await self._show_kept()

    def finish(self, result: RunResult) -> None:
        """Say what went wrong, if something did."""
        self._end_line()
        match result.state:
            case RunState.COMPLETED:
                if result.steered_into:
                    self.note(f"run {result.run_id} joined run {result.steered_into}, which answers it")
            case RunState.CANCELED:
                click.echo("countermand: canceled", err=True)
            case _:
                why = visible(result.error) or "nobody said why"  # a provider's words may be in it
                click.echo(f"countermand: run {result.run_id} {result.state.value}: {why}", err=True)

    async def _show_kept(self) -> None:
        self._waiting.close()
        while self._kept:
            await self._show(self._kept.pop(0))
        await trio.lowlevel.checkpoint()

    async def _show(self, piece: TextPiece) -> None:
        if piece.is_restart:
            self.note("that attempt failed, and what it said does not count; here is the next")
        elif self._last is not None and self._last.message_id != piece.message_id:
            await _print("\n" if self._ends_line else "\n\n")
        self._last = piece
        text = _CONTROL.sub("", piece.text) if self._is_terminal else piece.text
        self._ends_line = text.endswith("\n")
        await _print(text)

    def _end_line(self) -> None:
        if not self._ends_line:
            click.echo()
            self._ends_line = True


class JsonOutput:
    """Every event of the run as the server sent it, a line each; the last line is the result."""

    def make_room(self) -> None:
        """Nothing is ever left standing on the last line."""

    def go_on(self) -> None:
        """Nothing is held: who reads events reads no questions."""

    def note(self, text: str) -> None:
        """Nothing but errors is said beside JSON."""

    async def follow(self, run: RunReader) -> None:
        """Print events until the run has ended."""
        await trio.lowlevel.checkpoint()
        while not run.is_over:
            event = await run.next_event()
            if event.data:
                await _print(event.data.decode() + "\n")

    def finish(self, result: RunResult) -> None:
        """Print the result."""
        click.echo(msgspec.json.encode({"type": "result", **msgspec.structs.asdict(result)}))


async def _print(text: str) -> None:
    """Write to stdout, in a thread: whoever reads it may be slow, and the engine may be in this very process."""

    def write() -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    await trio.to_thread.run_sync(write, abandon_on_cancel=True)

"""The story, live: `python -m tests.story`. It ends with the tests and the change; 0 if the work was done."""

import argparse
import sys
import tempfile
from pathlib import Path

import trio
from rich.console import Console
from rich.markup import escape
from rich.rule import Rule
from rich.syntax import Syntax

from tests.doubles.live_server import open_live_server
from tests.story.developer_server import model_environment, open_developer
from tests.story.repository import Repository, environment, make_repository
from tests.story.telling import Told, tell
from tests.story.work import missing

COLORS = {"ann": "bold white", "mending": "cyan", "notes": "magenta", "steered": "cyan"}
FORMS = {
    "says": "{}",
    "calls": "[dim]→[/dim] [bold]{}[/bold]",
    "result": "[dim]{}[/dim]",
    "error": "[red]{}[/red]",
    "asks": "[yellow]? {}[/yellow]",
    "answers": "[green]✓ {}[/green]",
    "ends": "[bold]● this run has ended: {}[/bold]",
}
SHOWN = 6  # lines of a result


class Teller:
    """Prints what happens, a color for each session."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def narrate(self, who: str, kind: str, line: str) -> None:
        """Print one thing that happened."""
        form = FORMS["error"].replace("{}", "✗ {}") if line.endswith("deny") else FORMS[kind]
        lines = self._shortened(line.strip().splitlines()) if kind in ("result", "error") else [line.strip()]
        for number, text in enumerate(lines):
            name = who if not number else ""
            self._console.print(f"[{COLORS[who]}]{name:>8} │[/] {form.format(escape(text))}", highlight=False)

    def _shortened(self, lines: list[str]) -> list[str]:
        """The end of it: there a test run says what it came to."""
        told = [line for line in lines if line.strip() and not line.startswith(("<cwd>", "<file>", "</file>", "---"))]
        cut = len(told) - SHOWN
        return told if cut <= 0 else [f"… {cut} lines …", *told[-SHOWN:]]

    def conclude(self, repository: Repository, told: Told) -> int:
        """Print the tests, the change, and what is missing; the exit code."""
        tests = repository.tests()
        self._console.print(Rule("the tests"))
        self._console.print(tests.stderr.strip(), style="green" if tests.returncode == 0 else "red", highlight=False)
        self._console.print(Rule("the change"))
        self._console.print(Syntax(repository.git("diff"), "diff", background_color="default"))
        problems = list(missing(repository, told))
        for problem in problems:
            self._console.print(f"[red]missing:[/red] {escape(problem)}", highlight=False)
        is_done = tests.returncode == 0 and not problems
        self._console.print(Rule("done" if is_done else "not done", style="green" if is_done else "red"))
        return 0 if is_done else 1


async def run(pause_s: float) -> int:
    """Tell it, and look at what came of it."""
    teller = Teller(Console(soft_wrap=True))
    with tempfile.TemporaryDirectory(prefix="countermand-demo-") as directory:
        repository = make_repository(Path(directory) / "tally")
        async with (
            open_developer(pause_s=pause_s) as model,
            open_live_server(Path(directory) / "data", environ=environment() | model_environment(model)) as server,
        ):
            told = await tell(server, str(repository.root), teller.narrate)
        return teller.conclude(repository, told)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.story", description=__doc__)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds that the model takes for a few words")
    return trio.run(run, parser.parse_args().pause)


if __name__ == "__main__":
    sys.exit(main())

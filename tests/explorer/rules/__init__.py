"""What callers were told, laid beside what is stored: the rules that no record shows by itself.

A rule is a function of the `Book` that yields what is violated. The files hold them by what they are about.
"""

from collections.abc import Callable, Iterator

from tests.doubles.record import Record, check
from tests.explorer.ledger import Ledger
from tests.explorer.rules import cancels, endings, prompts, requests, sub_agents
from tests.explorer.rules.book import Book
from tests.explorer.scenario import Scenario

RULES: tuple[Callable[[Book], Iterator[str]], ...] = (
    *cancels.RULES, *endings.RULES, *prompts.RULES, *requests.RULES, *sub_agents.RULES,
)  # fmt: skip


def violations(scenario: Scenario, ledger: Ledger, record: Record) -> Iterator[str]:
    """Everything that does not hold after a schedule."""
    yield from ledger.violations
    try:
        check(record)
    except AssertionError as error:
        yield str(error)
        return  # the rules rely on a sound record
    book = Book(scenario, ledger, record.runs)
    for rule in RULES:
        yield from rule(book)

"""What is promised to clients, laid beside what they were told and what they read: one function for each promise."""

from collections.abc import Callable, Iterator

from tests.machine.account import Account
from tests.machine.promises import cancels, endings, prompts, streams
from tests.machine.promises.book import Book
from tests.machine.world import World

PROMISES: tuple[Callable[[Book], Iterator[str]], ...] = (
    *prompts.PROMISES,
    *cancels.PROMISES,
    *endings.PROMISES,
    *streams.PROMISES,
)


def broken(world: World, account: Account) -> Iterator[str]:
    """Every promise that was broken."""
    book = Book(world, account)
    for promise in PROMISES:
        yield from promise(book)

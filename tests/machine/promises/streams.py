"""Streams and lists: what a reader was sent is what stands in the log (R17, R27-R29)."""

from collections.abc import Callable, Iterator

from tests.machine.promises.book import Book, run_of
from tests.machine.readers import Leg


def numbers_have_no_gap(book: Book) -> Iterator[str]:
    """R27: the log has every number once."""
    numbers = [int(event["id"]) for event in book.account.log]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"numbers have a gap: {numbers} (R27)"


def readers_saw_the_log(book: Book) -> Iterator[str]:
    """R28: each event that a reader was sent with a number is the one that stands in the log under it; of one run, it
    got every event between the first and the last."""
    log = {int(event["id"]): event for event in book.account.log}
    for reader in book.readers:
        for leg in reader.legs:
            for event in leg.events:
                if "id" in event and event != log.get(int(event["id"])):
                    yield f"reader {reader.name} was sent {event}, and the log has {log.get(int(event['id']))} (R27)"
            if reader.run_id is not None and leg.numbers:
                first = leg.after if leg.after is not None else 0
                due = [n for n, event in log.items() if first < n <= leg.numbers[-1] and run_of(event) == reader.run_id]
                if missing := set(due) - set(leg.numbers):
                    yield f"reader {reader.name} of {reader.run_id} was not sent {sorted(missing)} (R28)"
                yield from run_stream_ends(book, reader.name, leg)


def run_stream_ends(book: Book, name: str, leg: Leg) -> Iterator[str]:
    """The stream of a run ends with its terminal event, and not before; unless its server does."""
    kinds = [event["type"] for event in leg.events if "id" in event]
    if "run_complete" in kinds[:-1]:
        yield f"reader {name} was sent something after the terminal event: {kinds} (R19)"
    if leg.has_ended and kinds[-1] != "run_complete" and leg.server not in book.ledger.stops:
        yield f"the stream of reader {name} ended, and its last event was {kinds[-1]} (R28)"


def queues_are_told_in_order(book: Book) -> Iterator[str]:
    """R17: the prompts that wait are of the session, in accept order, and have not ended before they were asked for."""
    by_text = {life.text: life for life in book.lives.values()}
    for call in book.ledger.of("list"):
        if call.status != 200:
            continue
        lives = [by_text.get(text) for text in call.told]
        numbers = [life.number for life in lives if life is not None]
        if numbers != sorted(numbers) or any(life and life.session_id != call.target for life in lives):
            yield f"the queue of {call.target} was told as {call.told} (R17)"
        for life in lives:
            if life is not None and life.ended_moment < call.began:
                yield f"{life} had ended, and was told to wait (R17)"


PROMISES: tuple[Callable[[Book], Iterator[str]], ...] = (
    numbers_have_no_gap,
    readers_saw_the_log,
    queues_are_told_in_order,
)

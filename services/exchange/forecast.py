"""Say what a redrive would do, before anything is tried: every check that needs no lock.

Signature, attributes, decryption, commitment, schema and order of revisions are looked at as they
would be on arrival, and nothing is written. What an agency's own effects say is only known when it
is tried.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from services.bus import Entry
from services.exchange.delivery import Delivery, Prepared
from services.exchange.store import dead, incoming

_BATCH = 100


class Outcome(StrEnum):
    """What comes of a dead letter that is tried again.

    `passed`: there is nothing to try, because it was taken meanwhile or a later revision stands in
    for it.
    """

    TAKEN = "taken"
    HELD = "held"
    FAILED = "failed"
    PASSED = "passed"


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of one dead letter; `cause` is the code that it would fail with."""

    dead_id: UUID
    outcome: Outcome
    cause: str | None = None


@dataclass(slots=True)
class Forecast:
    """What is expected of all of them: how many of each outcome, and why some would fail."""

    letters: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    expected: list[Expected] = field(default_factory=list)

    def add(self, expected: Expected) -> None:
        """Count one."""
        self.letters += 1
        self.outcomes[expected.outcome] += 1
        if expected.cause is not None:
            self.causes[expected.cause] += 1
        self.expected.append(expected)


async def forecast(
    delivery: Delivery,
    letters: Sequence[UUID],
    *,
    progress: Callable[[int], None] | None = None,
) -> Forecast:
    """Return what a redrive of these letters, in this order, would do; writes nothing."""
    found = Forecast()
    reached: dict[UUID, int] = {}
    for at in range(0, len(letters), _BATCH):
        batch = letters[at : at + _BATCH]
        began = time.monotonic()
        async with delivery.agency.store.transaction() as tx:
            rows = await dead.by_ids(tx, batch)
        for stream in dict.fromkeys(row.stream for row in rows):
            some = [row for row in rows if row.stream == stream]
            # The id of the letter stands in for the entry's: two letters may share an entry.
            entries = [Entry(stream, str(row.dead_id), row.envelope, 1) for row in some]
            prepared = await delivery.examine(entries)
            await _sort(delivery, prepared, [row.dead_id for row in some], reached, found)
        if progress is not None:
            progress(found.letters)
        # Whoever looks is in no hurry; live messages need the processors, too.
        await asyncio.sleep(time.monotonic() - began)
    return found


async def _sort(
    delivery: Delivery,
    prepared: Prepared,
    letters: Sequence[UUID],
    reached: dict[UUID, int],
    found: Forecast,
) -> None:
    wrong = {entry.entry_id: error.code for entry, error in prepared.unauthentic}
    wrong |= {message.entry.entry_id: error.code for message, error in prepared.refused}
    named = {message.entry.entry_id: message.envelope.attributes for message in prepared.arrived}
    control = {key for key, attributes in named.items() if attributes.subject is None}
    notices = {each.subject for each in named.values() if each.subject is not None}
    async with delivery.agency.store.transaction() as tx:
        applied = await incoming.reached(tx, sorted(notices - reached.keys()))
    reached.update({notice_id: applied.get(notice_id, 0) for notice_id in notices - reached.keys()})
    for dead_id in letters:
        key = str(dead_id)
        if key in wrong:
            found.add(Expected(dead_id, Outcome.FAILED, wrong[key]))
            continue
        if key not in prepared.contents:
            found.add(Expected(dead_id, Outcome.TAKEN if key in control else Outcome.PASSED))
            continue
        notice_id, revision = named[key].subject, named[key].revision
        if notice_id is None or revision is None or revision == reached[notice_id] + 1:
            if notice_id is not None and revision is not None:
                reached[notice_id] = revision
            found.add(Expected(dead_id, Outcome.TAKEN))
        elif revision <= reached[notice_id]:
            found.add(Expected(dead_id, Outcome.FAILED, "NB-2153"))
        else:
            found.add(Expected(dead_id, Outcome.HELD))

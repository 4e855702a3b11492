"""A life of notices at both agencies, step by step: everything that changes a projection happens.

Between two steps both sides are at rest, so that a test can look at them, and say what they knew.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from schemas.codes import Treatment
from schemas.errors import RejectedError
from services.exchange import dead
from services.exchange.agency import Agency
from services.exchange.control import Control
from services.exchange.delivery import Delivery
from services.exchange.effects import Taken
from services.exchange.intake import Intake
from services.hhs import queue
from services.hhs.casework import CaseWork
from services.ice import notices, obligations
from services.ice.docket.findings import CourtKeys
from services.ice.effects import IceEffects
from services.ledger.store import Transaction
from tests.agencies import Pair, running, two_agencies, until, value
from tests.notices_made import a_finding, by_hand, recently, taken_back
from tests.saved import Fresh, Keeper, Saved

Steps = tuple[Callable[["Life"], Awaitable[None]], ...]

DAY = recently()
FIRST, SECOND = "2026-11", "2026-12"
# The children that HHS refuses until it is mended, and that ICE writes by hand.
REFUSED, TYPED = 6, 14


@dataclass(frozen=True, slots=True)
class Moody(CaseWork):
    """HHS's effects, that refuse some children until somebody mends it."""

    refuses: set[str] = field(default_factory=set)

    async def apply(self, tx: Transaction, messages: Sequence[Taken]) -> None:
        for message in messages:
            if getattr(message.body, "a_number", None) in self.refuses:
                raise RejectedError("NB-8003", notice_id=message.notice_id)
        await CaseWork.apply(self, tx, messages)


@dataclass
class Life:
    """Two agencies, and the notices of their children by number."""

    pair: Pair
    effects: Moody
    notices: dict[int, UUID] = field(default_factory=dict)

    async def learn(self) -> None:
        """Note which notice is which child's."""
        async with self.pair.ice.store.transaction() as tx:
            cursor = await tx.execute("SELECT a_number, notice_id FROM obligation")
            self.notices = {int(row[0][-3:]): row[1] for row in await cursor.fetchall()}

    @asynccontextmanager
    async def both(self) -> AsyncIterator[None]:
        """Run both sides; at the end all that they owe each other is done."""
        async with running(self.pair.ice, IceEffects()), running(self.pair.hhs, self.effects):
            yield
            for agency in (self.pair.ice, self.pair.hhs):
                await until(partial(_at_rest, agency), f"{agency.name} at rest")

    async def find(self, release: str, *items: Any) -> None:
        """Take findings in."""
        await obligations.open_findings(
            self.pair.ice.store, items, release=release, actor="importer"
        )
        await self.learn()


@asynccontextmanager
async def a_life(home: Path, database: Callable[[str], str], redis_url: str) -> AsyncIterator[Life]:
    """Open two agencies before anything happened."""
    async with two_agencies(home, database, redis_url) as pair:
        yield Life(pair, Moody(refuses={f"A{100_000_000 + REFUSED:09d}"}))


async def opened(life: Life) -> None:
    """A release brings notices that are sent, one with a second case, and some that wait."""
    second = (CourtKeys(1_000_702, 2_000_702, 3_000_702),)
    wait = partial(a_finding, on=DAY, decision=Treatment.CONFIRM)
    async with life.both():
        await life.find(
            FIRST,
            *(a_finding(n, on=DAY, aliases=second if n == 2 else ()) for n in range(1, 7)),
            *(wait(n) for n in range(7, 13)),
        )
        await until(partial(_refused, life.pair.ice), "the refusal")


async def worked(life: Life) -> None:
    """People at HHS take, take over, renew, release and close cases."""
    store, of = life.pair.hhs.store, life.notices
    async with life.both():
        for number in (1, 2, 3, 5):
            lease = timedelta(hours=number)
            await queue.take(store, of[number], actor="clerk", lease=lease)
        await queue.outcome(store, of[2], code="SAFE_MOVED", actor="clerk")
        await queue.release(store, of[3], actor="clerk")
        await queue.take(store, of[1], actor="clerk", lease=timedelta(seconds=-1))
        await queue.take(store, of[1], actor="other clerk")


async def decided(life: Life) -> None:
    """People at ICE dismiss, confirm, and write by hand what waited and what nobody knew."""
    store, of = life.pair.ice.store, life.notices
    hearing = f"{DAY.isoformat()}T09:00"
    async with life.both():
        await notices.dismiss(store, of[7], reason="DATA_ENTRY", actor="officer")
        await notices.confirm(store, of[8], actor="officer")
        for number in (9, TYPED):
            typed = by_hand(a_number=f"A{100_000_000 + number}", hearing=hearing)
            await notices.send(store, typed, actor="officer")
        await life.learn()


async def told_again(life: Life) -> None:
    """A later release decides, brings keys, and takes hearings back."""

    now = partial(a_finding, on=DAY, source_release=SECOND)
    more = (CourtKeys(1_000_801, 2_000_001, 3_000_801),)
    async with life.both():
        await life.find(
            SECOND,
            now(1, aliases=more),
            now(7),
            now(10),
            now(TYPED, aliases=(CourtKeys(1_000_814, 0, 0),)),
            *(taken_back(number, on=DAY) for number in (2, 3, 4, 5, 11)),
        )


async def answered(life: Life) -> None:
    """People answer what the later release asked."""
    store, of = life.pair.ice.store, life.notices
    async with life.both():
        for number in (2, 3, 5, 7):
            await notices.confirm(store, of[number], actor="officer")
        for number in (4, 11):
            await notices.dismiss(store, of[number], reason="DATA_ENTRY", actor="officer")


async def late(life: Life) -> None:
    """HHS is away for longer than an answer may take, comes back, and mends what it refused."""
    async with running(life.pair.ice, IceEffects()):
        await life.find(SECOND, a_finding(13, on=DAY, source_release=SECOND))
        await until(partial(_overdue, life.pair.ice), "an overdue answer")
    life.effects.refuses.clear()
    hhs = life.pair.hhs
    delivery = Delivery(
        agency=hhs,
        intake=Intake(agency=hhs, effects=life.effects),
        control=Control(agency=hhs, effects=life.effects),
    )
    async with life.both():
        [letter] = await dead.listed(hhs)
        redriven = await dead.redrive(delivery, letter, actor="engineer", reason="mended")
        assert redriven.state == "redriven"
        await until(partial(_at_rest, life.pair.ice), "every receipt")
        await queue.take(hhs.store, life.notices[13], actor="clerk")
        await queue.outcome(hhs.store, life.notices[1], code="NOT_REACHED", actor="other clerk")


STEPS: Steps = (opened, worked, decided, told_again, answered, late)


async def lived(life: Life, each: Callable[[str], Awaitable[None]] | None = None) -> None:
    """Live the whole life; `each` is called with a step's name once both sides are at rest."""
    for step in STEPS:
        await step(life)
        if each is not None:
            await each(step.__name__)


@dataclass
class SavedLives:
    """Lives each of their beginnings once, and goes on from there any number of times."""

    keeper: Keeper
    _saved: dict[Steps, tuple[Saved, Life]] = field(default_factory=dict)

    @asynccontextmanager
    async def after(self, steps: Steps, home: Path, redis_url: str) -> AsyncIterator[Life]:
        """Open a copy of the life as it was after these steps, at rest."""

        async def live(home: Path, fresh: Fresh) -> Life:
            async with a_life(home, fresh, redis_url) as life:
                for step in steps:
                    await step(life)
            return life

        if steps not in self._saved:
            self._saved[steps] = await self.keeper.keep(live, redis_url)
        saved, life = self._saved[steps]
        async with self.keeper.copied(saved, home, redis_url) as pair:
            yield Life(pair, Moody(refuses=set(life.effects.refuses)), dict(life.notices))


async def _at_rest(agency: Agency) -> bool:
    waiting = await value(
        agency,
        "SELECT (SELECT count(*) FROM outbox) + (SELECT count(*) FROM unsealed)"
        " + (SELECT count(*) FROM gap) + (SELECT count(*) FROM republish)"
        " + (SELECT count(*) FROM inbox WHERE state = 'held')"
        " + (SELECT count(*) FROM sent WHERE answer IS NULL)",
    )
    return waiting == 0


async def _refused(agency: Agency) -> bool:
    return await value(agency, "SELECT count(*) FROM sent WHERE answer = 'refusal'") == 1


async def _overdue(agency: Agency) -> bool:
    return await value(agency, "SELECT count(*) FROM sent WHERE overdue_at IS NOT NULL") == 1

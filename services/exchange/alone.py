"""Locks that keep two processes of one agency from doing the same work: slots and streams.

A lock is a session's advisory lock in the agency's own database: it goes when the process goes,
however that ends. After an outage of the database it is taken again; should another process have
been faster, both work for a moment, which costs duplicates and nothing else: numbering is safe by
row locks, and what arrives twice has one effect.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from hashlib import sha256

import structlog

from schemas.errors import UnavailableError
from services.exchange.agency import Agency
from services.exchange.store import locks
from services.exchange.waiting import pause
from services.ledger.store import Session

log = structlog.get_logger()

SLOTS_MAX = 64
# Whoever holds it publishes.
RELAY = "relay"
_LOOK_SECONDS = 2.0
_TRY_SECONDS = 0.2


class Alone:
    """Holds one of several names for this process; `held` is set while it does."""

    def __init__(self, agency: Agency, names: list[str]) -> None:
        self._agency = agency
        self._names = names
        self.name: str | None = None
        self.held = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Take the first free name, and hold it until `stop`."""
        while not stop.is_set():
            try:
                async with self._agency.store.session() as session:
                    while not stop.is_set():
                        if self.held.is_set():
                            await session.check()
                        else:
                            await self._take(session)
                        await pause(stop, _LOOK_SECONDS if self.held.is_set() else _TRY_SECONDS)
            except UnavailableError as error:
                log.warning("lock waits for the store", code=error.code)
                await pause(stop, 0.5)
            finally:
                self.held.clear()

    async def _take(self, session: Session) -> None:
        # A consumer's name must not change while it runs: entries are pending under it.
        for name in [self.name] if self.name else self._names:
            if await session.try_lock(_key(name)):
                self.name = name
                self.held.set()
                return


def slots(agency: str) -> list[str]:
    """Return the consumer names that processes of an agency take turns in."""
    return [f"{agency}-{number}" for number in range(SLOTS_MAX)]


@asynccontextmanager
async def free(agency: Agency, name: str) -> AsyncIterator[bool]:
    """Hold a name while the block runs if nobody else does; gives out whether it was free."""
    async with agency.store.holding(_key(name)) as (ours, _):
        yield ours


async def living(agency: Agency, names: Collection[str]) -> frozenset[str]:
    """Return those of `names` that a living process of this agency holds; takes none of them.

    A process that was killed holds nothing a moment later; one that hangs still holds its name.
    """
    async with agency.store.transaction() as tx:
        held = await locks.held(tx)
    return frozenset(name for name in names if _key(name) in held)


def _key(name: str) -> int:
    """Return the advisory lock's number: 63 bits of the name's hash."""
    return int.from_bytes(sha256(f"noticebus {name}".encode()).digest()[:8], "big") >> 1

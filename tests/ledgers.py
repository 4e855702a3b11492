"""What tests of the ledger build and wait for, and how they tamper with it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from schemas.checkpoint import Signer
from services.ledger.anchor import Anchor
from services.ledger.records import Record, make_record
from services.ledger.sealer import Sealed, Sealer
from services.ledger.store import Store, Transaction, append_returning
from services.ledger.verify import verify
from services.settings import SealerSettings

ORIGIN = "ice.noticebus.example/noticebus/ice/1"
LOG_KEY = Signer(ORIGIN, Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
_ANCHORS = TemporaryDirectory(prefix="anchors")
START = datetime(2026, 11, 23, 21, 4, 5, 123456, tzinfo=UTC)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    """Open a store for one test."""
    async with await Store.open(url, pool_max=12) as store:
        yield store


def some_records(count: int, *, actor: str | None = None) -> list[Record]:
    """Return records of messages that were taken, a second apart."""
    return [
        make_record(
            "message.received",
            time=START + timedelta(seconds=number),
            result="taken",
            notice_id=uuid4(),
            message_id=uuid4(),
            stream="{ice.hhs.live.0}:out",
            generation=1,
            sequence=number + 1,
            envelope=bytes(32),
            commitment=bytes(32),
            actor=actor,
        )
        for number in range(count)
    ]


async def keep(store: Store, records: Sequence[Record], owes: str | None = None) -> list[int]:
    """Append records in a transaction of their own."""
    async with store.transaction() as tx:
        return await append_returning(tx, records, owes)


class Answers:
    """Remembers what it was asked to answer."""

    def __init__(self) -> None:
        self.batches: list[Sealed] = []

    async def __call__(self, tx: Transaction, sealed: Sealed) -> None:
        self.batches.append(sealed)


def a_sealer(
    store: Store,
    answer: Answers | None = None,
    *,
    batch_max: int = 2000,
    interval_seconds: float = 0.05,
    log_key: Signer = LOG_KEY,
) -> Sealer:
    """Return a sealer with a key that is the same in all tests."""
    return Sealer(
        store,
        log_key=log_key,
        settings=SealerSettings(interval_seconds=interval_seconds, batch_max=batch_max),
        answer=answer or Answers(),
        anchor=anchor_of(store),
    )


def anchor_of(store: Store) -> Anchor:
    """Return the anchor of a store of a test: a file of its own, wherever it is opened again."""
    path = Path(_ANCHORS.name) / str(store._settings["dbname"])
    return Anchor(path, (LOG_KEY.verifier,))


async def seal_all(sealer: Sealer) -> list[Sealed]:
    """Seal until nothing waits."""
    batches = []
    while (sealed := await sealer.seal_once()) is not None:
        batches.append(sealed)
    return batches


async def until(done: Callable[[], bool | Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while True:
            result = done()
            if result if isinstance(result, bool) else await result:
                return
            await asyncio.sleep(0.005)


async def log_of(store: Store) -> list[tuple[int, int]]:
    async with store.transaction() as tx:
        cursor = await tx.execute(
            "SELECT record_index, record_id FROM log_entry ORDER BY record_index"
        )
        return [(row[0], row[1]) for row in await cursor.fetchall()]


async def assert_verifies(store: Store, *, size: int, also: list[str] | None = None) -> None:
    report = await verify(store, log_keys=[LOG_KEY.verifier], also=also or [])
    assert report.difference is None
    assert (report.size, report.verified, report.unsealed) == (size, size, 0)


def tamper(url: str, *statements: str) -> None:
    """Do what the triggers forbid, as somebody who owns the database could."""
    tables = ("record", "log_entry", "tile", "checkpoint")
    with psycopg.connect(url, connect_timeout=10) as connection:
        for table in tables:
            connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER append_only".encode())
        for statement in statements:
            assert connection.execute(statement.encode()).rowcount > 0, statement
        for table in tables:
            connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER append_only".encode())

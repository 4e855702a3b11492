"""The two ledgers that are mutated: made once, and put back after every mutation."""

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from schemas.errors import EvidenceError
from services.exchange.agency import Agency
from services.exchange.contents import verify_contents
from services.exchange.verifying import verify_log
from services.ledger.records import make_record
from services.ledger.store import append
from tests.agencies import a_notice, accept, answered, two_agencies, until, value
from tests.faults.mutations.handed_out import HandedOut, handed_out

NOTICES = (8, 16)
# Enough for a full tile on either side.
FILLING = 260
TABLES = (
    *("record", "opening", "log_entry", "tile", "checkpoint", "log_head"),
    *("payload", "envelope", "sent", "inbox", "party"),
)


@dataclass
class Ground:
    """One agency's store, a connection that obeys no trigger, and the rows as they were."""

    agency: Agency
    owner: psycopg.Connection[tuple[Any, ...]]

    def run(self, statement: str, arguments: Sequence[object] = ()) -> int:
        """Run a statement as the database's owner; returns how many rows it changed."""
        return self.owner.execute(statement.encode(), arguments).rowcount

    def rows(self, query: str, arguments: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self.owner.execute(query.encode(), arguments).fetchall()

    def put_back(self, table: str) -> None:
        """Make a table what it was before the first mutation."""
        self.owner.execute(
            sql.SQL("DELETE FROM {0}; INSERT INTO {0} OVERRIDING SYSTEM VALUE SELECT * FROM {1}")
            .format(sql.Identifier(table), sql.Identifier("as_it_was", table))
            .as_string()
            .encode()
        )

    async def difference(self) -> EvidenceError | None:
        """Return the first difference that the product's verification finds."""
        keys = self.agency.ring.log_verifiers
        settings = self.agency.settings
        verified = await verify_log(self.agency.store, settings, log_keys=keys)
        if verified.difference is not None:
            return verified.difference
        return (await verify_contents(self.agency.store)).difference


@dataclass
class Grounds:
    """Everything that is mutated: both stores, and what was handed out of them."""

    stores: list[Ground]
    handed_out: HandedOut


@asynccontextmanager
async def grounds(
    home: Path, database: Callable[[str], str], redis_url: str
) -> AsyncIterator[Grounds]:
    """Let two agencies exchange notices, hand out what proves them, then give it all, at rest."""
    async with two_agencies(home, database, redis_url) as pair:
        async with pair.running():
            for count in NOTICES:
                drafts = [a_notice() for _ in range(count)]
                await accept(pair.ice, *drafts)
                await until(partial(answered, pair.ice, drafts), "every receipt")
            for agency in (pair.ice, pair.hhs):
                await _fill(agency)
            handed = await handed_out(pair, home)
            for agency in (pair.ice, pair.hhs):
                await until(partial(_sealed, agency), "what was handed out is on record")
        made = []
        try:
            for agency in (pair.ice, pair.hhs):
                owner = psycopg.connect(
                    agency.settings.database_url_required, autocommit=True, connect_timeout=10
                )
                made.append(Ground(agency, owner))
                owner.execute(b"SET session_replication_role = replica")
                owner.execute(b"SET synchronous_commit = off")
                owner.execute(b"CREATE SCHEMA as_it_was")
                for table in TABLES:
                    owner.execute(
                        sql.SQL("CREATE TABLE {} AS SELECT * FROM {}").format(
                            sql.Identifier("as_it_was", table), sql.Identifier(table)
                        )
                    )
            yield Grounds(made, handed)
        finally:
            for ground in made:
                ground.owner.close()


async def _fill(agency: Agency) -> None:
    """Add records that name nobody, so that a tile is full."""
    async with agency.store.transaction() as tx:
        await append(
            tx,
            [
                make_record("report.made", time=datetime.now(UTC), actor=os.urandom(4).hex())
                for _ in range(FILLING)
            ],
        )
    await until(partial(_sealed, agency), "every record sealed")


async def _sealed(agency: Agency) -> bool:
    return await value(agency, "SELECT count(*) FROM unsealed") == 0

"""PostgreSQL as the ledger uses it, and the transaction that everything else is written in.

The only way into the database: `Store` gives out transactions and turns an outage into
`UnavailableError`; `append` puts records into one; `migrate` brings the schema up to date.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from services.ledger.store.anchored import ANCHORED_CHANNEL
from services.ledger.store.appending import (
    UNSEALED_CHANNEL,
    append,
    append_returning,
    notify,
)
from services.ledger.store.connection import Prepare, Reading, Session, Store, Transaction
from services.ledger.store.log import SEALED_CHANNEL
from services.ledger.store.together import together

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.rows import TupleRow

    Fill = Callable[[Connection[TupleRow]], None]

__all__ = [
    "ANCHORED_CHANNEL",
    "SEALED_CHANNEL",
    "UNSEALED_CHANNEL",
    "Prepare",
    "Reading",
    "Session",
    "Store",
    "Transaction",
    "append",
    "append_returning",
    "is_known",
    "migrate",
    "notify",
    "rebuild",
    "together",
]


def migrate(url: str, agency: str) -> None:
    """Bring a database to the schema this build needs; see `migration.migrate`."""
    # Alembic takes a fifth of a second to load, and few commands need it.
    from services.ledger.store.migration import migrate as run

    run(url, agency)


def is_known(revision: str) -> bool:
    """Say whether this build has a migration of that name; see `migration.is_known`."""
    from services.ledger.store.migration import is_known as known

    return known(revision)


def rebuild(
    url: str, agency: str, *, revision: str, admit: "Fill", fill: "Fill", mark: "Fill"
) -> None:
    """Make a whole store in one transaction, or change nothing; see `migration.rebuild`."""
    from services.ledger.store.migration import rebuild as run

    run(url, agency, revision=revision, admit=admit, fill=fill, mark=mark)

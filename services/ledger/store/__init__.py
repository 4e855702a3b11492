"""PostgreSQL as the ledger uses it, and the transaction that everything else is written in.

The only way into the database: `Store` gives out transactions and turns an outage into
`UnavailableError`; `append` puts records into one; `migrate` brings the schema up to date.
"""

from services.ledger.store.appending import UNSEALED_CHANNEL, append, notify
from services.ledger.store.connection import Session, Store, Transaction

__all__ = [
    "UNSEALED_CHANNEL",
    "Session",
    "Store",
    "Transaction",
    "append",
    "migrate",
    "notify",
]


def migrate(url: str, agency: str) -> None:
    """Bring a database to the schema this build needs; see `migration.migrate`."""
    # Alembic takes a fifth of a second to load, and few commands need it.
    from services.ledger.store.migration import migrate as run

    run(url, agency)

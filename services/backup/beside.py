"""Read a store with archives beside it: as if what moved to them had stayed.

Each file is verified first, whole. What it holds of this store then lies in tables of the
connection that reads, and is gone with it: nothing of the store changes, and nobody else sees it.
Costs a read of the files, once to verify and once for each connection.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from schemas.errors import RejectedError
from services.backup.archive_file import Verified, moved, verify_archive
from services.backup.store import beside as store
from services.backup.store.snapshot import PASS_SECONDS
from services.exchange.parties import own_log_keys
from services.keys import KeyRing
from services.ledger.store import Prepare, Store, Transaction

_BATCH = 500


async def beside(database: Store, ring: KeyRing, paths: Sequence[Path]) -> Prepare:
    """Verify archives of ours and return what lays them beside the store, for `Store.open`.

    Raises what `verify_archive` raises, `RejectedError` NB-3073 for a file that nothing of this
    store moved to.
    """
    keys = await own_log_keys(database, ring.agency)
    found: list[Verified] = []
    for path in paths:
        verified = verify_archive(path, ring, log_keys=keys)
        async with database.transaction() as tx:
            if not await store.known(tx, verified.digest):
                raise RejectedError("NB-3073", path=path)
        found.append(verified)

    async def prepare(connection: Transaction) -> None:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL statement_timeout = '{PASS_SECONDS:.0f}s'")
            await store.begin(connection)
            for each in found:
                lines = moved(each.path, ring, log_keys=keys)
                while batch := list(islice(lines, _BATCH)):
                    await store.lay_records(
                        connection,
                        each.digest,
                        [
                            (line.index, line.record, line.opened)
                            for line in batch
                            if line.record is not None and line.opened is not None
                        ],
                    )
                    messages = [line.message for line in batch if line.message is not None]
                    await store.lay_messages(
                        connection,
                        [(m.attributes.id, m.envelope, m.salt, m.body) for m in messages],
                    )
            await store.finish(connection)

    return prepare

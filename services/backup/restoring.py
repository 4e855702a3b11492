"""Make a store from a backup: the file is read to its end first, then all of it or nothing.

The store refuses every change afterwards, until a person adopts it: what was restored is older
than what the other agency has seen, and a log that went on from there would be a fork.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import structlog

from schemas.errors import ConflictError, RejectedError
from services.backup import container
from services.backup.container import Block, Content, Ended, Event, Part, Signed
from services.backup.snapshot import Backup, Progress, signers, verify_backup
from services.backup.store import snapshot as store
from services.keys import KeyRing
from services.ledger.store import is_known, rebuild

log = structlog.get_logger()


def restore(url: str, ring: KeyRing, path: Path, *, progress: Progress | None = None) -> Backup:
    """Fill the empty database at `url` from a backup, in one transaction; blocks.

    Raises what `verify_backup` raises before anything is written, `RejectedError` NB-5040 for a
    backup of a later build, `ConflictError` NB-5044 when the database holds anything.
    """
    backup = verify_backup(path, ring)
    revision = str(backup.header.about["revision"])
    if not is_known(revision):
        raise RejectedError("NB-5040", path=path, rule=f"its migration is {revision}")

    def admit(connection: store.Rows) -> None:
        table = store.first_filled(connection)
        if table is not None:
            raise ConflictError("NB-5044", table=table)

    def fill(connection: store.Rows) -> None:
        events = container.read(
            path, keys=ring.opening_files(), signers=signers(ring), expected=Content.BACKUP
        )
        _fill(connection, events, backup, progress)

    def mark(connection: store.Rows) -> None:
        store.mark_restored(
            connection,
            made_at=backup.header.made_at,
            digest=backup.digest,
            now=datetime.now(UTC),
        )

    rebuild(url, ring.agency, revision=revision, admit=admit, fill=fill, mark=mark)
    log.info("store restored", rows=backup.rows)
    return backup


def _fill(
    connection: store.Rows, events: Iterator[Event], backup: Backup, progress: Progress | None
) -> None:
    """Write every table; the file is the one that was verified, to the last byte."""
    rows = 0
    for event in events:
        match event:
            case Part(name=""):
                store.count_on(connection, dict(event.about["numbers"]))
                next(events)
            case Part():
                table = store.Table(name=event.name, columns=tuple(event.about["columns"]))
                rows += store.copy_in(connection, table, _blocks(events))
                if progress is not None:
                    progress(rows)
            case Signed():
                # Between the two readings the file may have been exchanged for another.
                if event.digest != backup.digest:
                    raise ConflictError("NB-5052", path=backup.path)
            case _:
                raise AssertionError(event)


def _blocks(events: Iterator[Event]) -> Iterator[bytes]:
    for event in events:
        match event:
            case Block():
                yield event.data
            case Ended():
                return
            case _:
                raise AssertionError(event)

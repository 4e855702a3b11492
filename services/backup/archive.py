"""Move closed notices to archive files: what was said of them, and the records that tell of them.

Only what was read back from the finished file leaves the store: exact bytes, contents and salts of
messages, the bytes of records, and the names that records commit to. Of a record its row stays,
with place, act, ids, time and the leaf hash, so that the tree is the same as before and every proof
can still be made; who needs the bytes asks for the file. Nothing moves that something still rests
on: notices that are open, owed, held, set aside, lost or before a person, and records that name
contents which stay. The file is encrypted and signed like a backup; its form is `archive_file`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import structlog
from uuid_utils.compat import uuid7

from schemas.canonical import b64, canonical
from schemas.checkpoint import Verifier
from schemas.envelope import source_of
from schemas.errors import ConflictError
from services.backup import container
from services.backup.archive_file import Verified, moved, verify_archive
from services.backup.container import Content, Header
from services.backup.files import new_file
from services.backup.snapshot import Progress, encrypt_to, place, program
from services.backup.store import archive as store
from services.backup.store.snapshot import PASS_SECONDS, facts
from services.keys import KeyRing
from services.ledger.records import make_record
from services.ledger.store import Store, append, append_returning
from services.ledger.store import log as ledger

log = structlog.get_logger()

SUFFIX = ".archive"
_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """How much of an archive was away and is in the store again."""

    messages: int
    records: int


async def archive(
    database: Store,
    ring: KeyRing,
    target: Path,
    *,
    before: datetime,
    actor: str,
    reason: str,
    progress: Progress | None = None,
) -> Verified | None:
    """Move what is closed and was quiet since `before` to a new file; None if there is nothing.

    Raises what `files.new_file` and `verify_archive` raise, `ConflictError` NB-5052 for a file that
    was changed, NB-3072 when something was done with a notice meanwhile. The store has changed only
    on return; when the last step fails, the file is whole and holds what the store still has too.
    """
    now = datetime.now(UTC)
    path = place(target, ring.agency, now, suffix=SUFFIX)
    own = source_of(ring.domain, ring.agency)
    async with database.transaction(seconds=PASS_SECONDS) as tx:
        await store.hold_still(tx)
        newest = await ledger.newest_checkpoint(tx)
        if newest is None:
            return None
        size, _ = newest
        chosen = await store.choose(tx, ring.agency, before=before, size=size)
        if not any(chosen):
            return None
        known = await facts(tx)
        header = Header(
            content=Content.ARCHIVE,
            sender=own,
            recipient=own,
            made_at=now,
            about={
                "agency": ring.agency,
                "generation": known.generation,
                "origin": known.origin,
                "program": program(),
                "size": size,
            },
        )
        with new_file(path) as file:
            writer = container.write_header(file, header, to=encrypt_to(ring), signing=ring.signing)
            writer.begin("log")
            async for row in store.lines(tx, size):
                writer.write(canonical(_line(row)) + b"\n")
                if progress is not None:
                    progress(row.record_index + 1)
            writer.end(rows=size)
            digest = writer.finish()
    verified = verify_archive(path, ring, log_keys=ring.log_verifiers)
    found = (verified.messages, verified.records, verified.size, verified.digest)
    if found != (*chosen, size, digest):
        raise ConflictError("NB-5052", path=path)
    await _leave(database, ring, verified, made_at=now, before=before, actor=actor, reason=reason)
    log.info("archived", messages=verified.messages, records=verified.records, size=size)
    return verified


async def _leave(
    database: Store,
    ring: KeyRing,
    verified: Verified,
    *,
    made_at: datetime,
    before: datetime,
    actor: str,
    reason: str,
) -> None:
    """Take out of the store what the file holds, all in one transaction."""
    now = datetime.now(UTC)
    archive_id = uuid7()
    async with database.transaction(seconds=PASS_SECONDS) as tx:
        await store.hold_still(tx)
        # What is chosen now has to be what was chosen then: a notice may have gone on meanwhile.
        chosen = await store.choose(tx, ring.agency, before=before, size=verified.size)
        (record_id,) = await append_returning(
            tx,
            [
                make_record(
                    "db.archived",
                    time=now,
                    actor=actor,
                    text=reason,
                    detail={
                        "archive": b64(verified.digest),
                        "messages": verified.messages,
                        "records": verified.records,
                        "size": verified.size,
                    },
                )
            ],
        )
        await store.keep(
            tx,
            store.Archive(
                archive_id=archive_id,
                digest=verified.digest,
                made_at=made_at,
                before=before,
                origin=verified.origin,
                size=verified.size,
                messages=verified.messages,
                records=verified.records,
                record_id=record_id,
            ),
        )
        left = (0, 0)
        lines = moved(verified.path, ring, log_keys=ring.log_verifiers)
        while batch := list(islice(lines, _BATCH)):
            messages = [each.message.attributes.id for each in batch if each.message is not None]
            indexes = [each.index for each in batch if each.opened is not None]
            left = (
                left[0] + await store.leave(tx, archive_id, messages, now),
                left[1] + await store.leave_records(tx, archive_id, indexes),
            )
        if not left == chosen == (verified.messages, verified.records):
            raise ConflictError("NB-3072", path=verified.path)


async def bring_back(
    database: Store,
    ring: KeyRing,
    path: Path,
    *,
    log_keys: Sequence[Verifier],
    actor: str,
    reason: str,
) -> Back:
    """Put messages and records of an archive back into the store; returns what was away.

    Raises what `verify_archive` raises, before anything is written.
    """
    verified = verify_archive(path, ring, log_keys=log_keys)
    messages = records = 0
    async with database.transaction(seconds=PASS_SECONDS) as tx:
        lines = moved(path, ring, log_keys=log_keys)
        while batch := list(islice(lines, _BATCH)):
            found = [each.message for each in batch if each.message is not None]
            messages += await store.come_back(
                tx, [(m.attributes.id, m.envelope, m.salt, m.body) for m in found]
            )
            records += await store.records_back(
                tx,
                verified.digest,
                [
                    (each.index, each.record, each.opened)
                    for each in batch
                    if each.record is not None and each.opened is not None
                ],
            )
        await append(
            tx,
            [
                make_record(
                    "db.unarchived",
                    time=datetime.now(UTC),
                    actor=actor,
                    text=reason,
                    detail={
                        "archive": b64(verified.digest),
                        "messages": messages,
                        "records": records,
                    },
                )
            ],
        )
    return Back(messages=messages, records=records)


def _line(row: store.Row) -> dict[str, Any]:
    if row.record is None:
        assert row.leaf is not None, "a record has its bytes or their hash"
        line: dict[str, Any] = {"leaf": b64(row.leaf)}
    else:
        line = {"record": b64(row.record)}
    if row.note is not None:
        line["checkpoint"] = row.note
    if row.moves:
        line["opened"] = row.opened or {}
    if row.message_id is not None:
        assert row.envelope is not None
        assert row.salt is not None
        assert row.body is not None
        line["message"] = {
            "envelope": row.envelope.decode("ascii"),
            "salt": b64(row.salt),
            "body": b64(row.body),
        }
    return line

"""Back up an agency's store: every table of one moment into one file.

One REPEATABLE READ transaction reads all tables while the agency works on; nothing waits for it.
The file is encrypted to the agency's own encryption key and signed by its signing key: whoever has
the key ring restores it, nobody else can read or make one. The keys are not in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import structlog

from schemas.canonical import b64
from schemas.envelope import source_of
from schemas.errors import NotFoundError, RejectedError
from schemas.jose import PublicEncryptionKey, VerifyKey
from services.backup import container
from services.backup.container import Content, Ended, Header, Part, Signed
from services.backup.files import new_file
from services.backup.store import snapshot as store
from services.keys import KeyRing
from services.ledger.records import make_record
from services.ledger.store import Store, append

log = structlog.get_logger()

SUFFIX = ".backup"

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup file: its header, and what it holds once all of it was read or written."""

    path: Path
    header: Header
    file_bytes: int
    parts: tuple[Part, ...] = ()
    digest: bytes = b""

    @property
    def rows(self) -> int:
        """How many rows all tables have together."""
        return sum(part.rows for part in self.parts)


def place(target: Path, agency: str, now: datetime, *, suffix: str = SUFFIX) -> Path:
    """Return the file to write: `target`, or a name with agency and time in that folder."""
    if target.is_dir():
        return target / f"noticebus-{agency}-{now:%Y%m%dT%H%M%SZ}{suffix}"
    return target


async def back_up(
    database: Store, ring: KeyRing, target: Path, *, actor: str, progress: Progress | None = None
) -> Backup:
    """Write one backup; afterwards its digest is on record. `progress` is told rows written.

    Raises what `files.new_file` raises, `UnavailableError` when the store goes away; then there is
    no file, and the same call begins anew.
    """
    now = datetime.now(UTC)
    path = place(target, ring.agency, now)
    own = source_of(ring.domain, ring.agency)
    rows = 0
    with new_file(path) as file:
        async with database.transaction(seconds=store.PASS_SECONDS) as tx:
            await store.begin_snapshot(tx)
            facts = await store.facts(tx)
            header = Header(
                content=Content.BACKUP,
                sender=own,
                recipient=own,
                made_at=now,
                about={
                    "agency": ring.agency,
                    "generation": facts.generation,
                    "origin": facts.origin,
                    "program": program(),
                    "revision": facts.revision,
                    "root": b64(facts.root) if facts.root else None,
                    "size": facts.size,
                },
            )
            writer = container.write_header(file, header, to=encrypt_to(ring), signing=ring.signing)
            for table in await store.tables(tx):
                writer.begin(table.name, columns=list(table.columns))
                copy = store.CopyOut(tx, table)
                async for data in copy:
                    writer.write(data)
                writer.end(rows=copy.rows)
                rows += copy.rows
                if progress is not None:
                    progress(rows)
            # Read last: a number that was drawn meanwhile is never drawn again.
            writer.begin("", numbers=await store.numbers(tx), checkpoint=facts.checkpoint)
            writer.end(rows=0)
        digest = writer.finish()
    record = make_record(
        "db.backup",
        time=datetime.now(UTC),
        actor=actor,
        detail={"backup": b64(digest), "rows": rows, "size": facts.size},
    )
    async with database.transaction() as tx:
        await append(tx, [record])
    log.info("backup written", rows=rows)
    return Backup(
        path=path,
        header=header,
        file_bytes=path.stat().st_size,
        parts=tuple(writer.parts[:-1]),
        digest=digest,
    )


def verify_backup(path: Path, ring: KeyRing, *, progress: Progress | None = None) -> Backup:
    """Read a whole backup without a store. Raises what `container.read` and `held` raise."""
    header = held(path, ring)
    rows = 0
    for event in container.read(
        path, keys=ring.opening_files(), signers=signers(ring), expected=Content.BACKUP
    ):
        match event:
            case Ended():
                rows += event.part.rows
                if progress is not None:
                    progress(rows)
            case Signed():
                return Backup(
                    path=path,
                    header=header,
                    file_bytes=path.stat().st_size,
                    parts=event.parts[:-1],
                    digest=event.digest,
                )
    raise AssertionError("a file ends with its signature or an error")


def held(path: Path, ring: KeyRing, *, expected: Content = Content.BACKUP) -> Header:
    """Return the header of a file of ours.

    Raises what `container.read_header` raises, `RejectedError` NB-5041 for another content, NB-5042
    when it is another agency's.
    """
    header = container.read_header(path)
    if header.content is not expected:
        raise RejectedError("NB-5041", path=path, expected=expected)
    own = source_of(ring.domain, ring.agency)
    if header.recipient != own:
        raise RejectedError("NB-5042", path=path, found=header.recipient, agency=own)
    return header


def listed(place: Path) -> list[Backup]:
    """Return the backups of a folder, newest first, as their headers have it; or the one file.

    Raises `NotFoundError` NB-5051 for a place that is not there.
    """
    if not place.exists():
        raise NotFoundError("NB-5051", what="file", value=place)
    files = sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() else [place]
    found = [
        Backup(path=path, header=container.read_header(path), file_bytes=path.stat().st_size)
        for path in files
    ]
    return sorted(found, key=lambda each: each.header.made_at, reverse=True)


def encrypt_to(ring: KeyRing) -> PublicEncryptionKey:
    """Return our own newest encryption key."""
    return PublicEncryptionKey.of(ring.encryption_keys[0].private.public_key())


def signers(ring: KeyRing) -> dict[str, VerifyKey]:
    """Return our signing keys, every one that the ring still has."""
    owner = source_of(ring.domain, ring.agency)
    return {
        key.kid: VerifyKey(key.kid, key.private.public_key(), owner) for key in ring.signing_keys
    }


def program() -> str:
    """Return this build's version."""
    try:
        return version("noticebus")
    except PackageNotFoundError:
        return "0"

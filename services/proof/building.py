"""Build a proof bundle: gather, lay out, sign, check, put on record, and only then hand it out.

What was built is checked by our own verifier before anybody sees it, so that a store that was
tampered with makes no bundle. The act is on record before the file has its name: a bundle with
personal data that nobody recorded does not exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from schemas.canonical import b64
from schemas.errors import NotFoundError, RejectedError
from services.backup.files import new_file
from services.exchange.agency import Agency
from services.ledger.records import make_record
from services.ledger.store import Transaction, append, audit
from services.proof import store
from services.proof.archive import packed
from services.proof.checking import check
from services.proof.gathering import Gathered, gather
from services.proof.guide import guide
from services.proof.members import MANIFEST, About, manifest_of, members_of
from services.proof.pdf import pdf
from services.proof.report import paragraphs, plain

NOTICES_MAX = 2_000
GATHER_SECONDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which notices: one, or those of an office in a time."""

    notice_id: UUID | None = None
    office: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def said(self) -> dict[str, str]:
        """Return what was asked for, in words."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else str(value)
            for name, value in (
                ("notice", self.notice_id),
                ("office", self.office),
                ("since", self.since),
                ("until", self.until),
            )
            if value is not None
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A bundle that was written: its SHA-256 in hex, and what is in it."""

    path: Path
    digest: str
    bytes: int
    notices: int
    messages: int
    records: int
    receipts: int
    origin: str
    size: int
    revealed: bool


async def build(
    agency: Agency,
    selection: Selection,
    path: Path,
    *,
    actor: str,
    reason: str | None = None,
    now: datetime | None = None,
) -> Built:
    """Write a bundle into a new file; with a `reason` it reveals what messages say and who acted.

    Raises `NotFoundError` NB-3105 without any notice, `RejectedError` NB-3106 for too many,
    `ConflictError` NB-3108 before anything was sealed, `EvidenceError` when what is stored does not
    prove what it should or does not continue its anchor, and what `new_file` raises; the file is
    then not there.
    """
    await agency.hold_to_anchor()
    about = About(
        agency=agency.name,
        peer=agency.peer,
        made_at=now or datetime.now(UTC),
        selection=selection.said(),
        revealed=reason is not None,
    )
    with new_file(path) as file:
        async with agency.store.transaction(seconds=GATHER_SECONDS) as tx:
            await audit.hold_still(tx)
            notices = await _selected(tx, agency, selection)
            gathered = await gather(tx, agency, notices, reveal=about.revealed)
        content = bundle(gathered, about, agency)
        digest = sha256(content)
        record = make_record(
            "proof.built",
            time=about.made_at,
            result="revealed" if about.revealed else "ok",
            notice_id=selection.notice_id,
            actor=actor,
            office=selection.office,
            text=reason,
            detail={
                "bundle": b64(digest.digest()),
                "notices": len(notices),
                "size": gathered.size,
            },
        )
        file.write(content)
        async with agency.store.transaction() as tx:
            await append(tx, [record])
    return Built(
        path=path,
        digest=digest.hexdigest(),
        bytes=len(content),
        notices=len(notices),
        messages=len(gathered.messages),
        records=len(gathered.records),
        receipts=len(gathered.receipts),
        origin=gathered.origin,
        size=gathered.size,
        revealed=about.revealed,
    )


def bundle(gathered: Gathered, about: About, agency: Agency) -> bytes:
    """Return the zip of what was gathered, checked. Raises `EvidenceError` NB-3100."""
    members = members_of(gathered, about)
    report = list(paragraphs(gathered, about))
    members["report.txt"] = plain(report)
    members["report.pdf"] = pdf(report, about.made_at)
    members["README.txt"] = guide(gathered, about, members)
    members[MANIFEST] = manifest_of(gathered, about, members, agency.ring.signing)
    check(members)
    return packed(members)


async def _selected(tx: Transaction, agency: Agency, selection: Selection) -> Sequence[UUID]:
    if selection.notice_id is not None:
        return [selection.notice_id]
    found = await store.of_office(
        tx,
        agency.name,
        selection.office or "",
        since=selection.since,
        until=selection.until,
        limit=NOTICES_MAX + 1,
    )
    if not found:
        raise NotFoundError("NB-3105", office=selection.office)
    if len(found) > NOTICES_MAX:
        raise RejectedError("NB-3106", limit=NOTICES_MAX)
    return found

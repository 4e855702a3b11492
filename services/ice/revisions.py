"""Make messages of notices: from what is known of a missed hearing to what HHS is told.

A notice is told in revisions; each says everything that is known, so the newest one stands alone.
Whatever is sent is checked against the schema first, and written in the one transaction that also
writes its ledger record and its outbox row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from secrets import token_bytes
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from uuid_utils.compat import uuid7

from schemas import codes
from schemas.canonical import canonical, format_time, parse
from schemas.catalog import parse_body
from schemas.envelope import SALT_BYTES, Kind, Lane, commitment
from schemas.errors import RejectedError
from schemas.notice import Notice, NoticeKind, Priority, ReasonCode
from services.exchange.outbox import Draft, accept
from services.exchange.store.outgoing import keep_payloads
from services.ice.store import obligations as store
from services.ice.store.obligations import Corrected, Obligation, RevisionRow, Sending
from services.ledger.records import Record, make_record
from services.ledger.store import Transaction

# What names one revision, and is never part of the content that it says.
NAMING_FIELDS = frozenset(
    {"schema_version", "notice_id", "revision", "notice_kind", "supersedes", "reason_code"}
)
KEY_FIELDS = ("eoir_case_key", "eoir_proceeding_key", "eoir_schedule_key")

Content = Mapping[str, Any]
"""JSON values by the notice's field names, absent where nothing is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """One revision as it will be sent: the checked notice and its canonical bytes."""

    notice: Notice
    body: bytes
    message_id: UUID
    lane: Lane
    supersedes: UUID | None
    # The message that this one answers to, if that is an earlier one: it was refused.
    cause: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A content that no message carries: kept like a message's, bound by its record."""

    content_id: UUID
    salt: bytes
    body: bytes

    @property
    def commitment(self) -> bytes:
        """Return what binds the record to this content."""
        return commitment(self.salt, self.body)


def kept(content: Content) -> Kept:
    """Return a content ready to be kept."""
    return Kept(content_id=uuid7(), salt=token_bytes(SALT_BYTES), body=canonical(content))


async def keep(tx: Transaction, contents: Sequence[Kept]) -> None:
    """Keep contents; their records are written in the same transaction."""
    await keep_payloads(tx, [(each.content_id, each.salt, each.body) for each in contents])


def content_of(body: bytes) -> dict[str, Any]:
    """Return what a revision or a waiting obligation says, from its stored bytes."""
    said: dict[str, Any] = parse(body)
    return {name: value for name, value in said.items() if name not in NAMING_FIELDS}


def known_keys(row: Obligation) -> dict[str, int]:
    """Return the court's keys that stand with an obligation, by the notice's field names."""
    return {name: key for name in KEY_FIELDS if (key := getattr(row, name)) is not None}


def detected(content: Content, *, at: datetime, prior_missed: int) -> dict[str, Any]:
    """Return content with what its source cannot know: when we learned of it, and how often before.

    A child who missed a hearing before is URGENT.
    """
    said = {**content, "detected_at": format_time(at), "prior_missed": prior_missed}
    if prior_missed:
        said["priority"] = str(Priority.URGENT)
    return said


def check(content: Content, notice_id: UUID) -> tuple[Notice, bytes]:
    """Return the first revision of a notice that would say this, and its canonical bytes.

    Raises `RejectedError` NB-1000 with the field and the rule that it breaks.
    """
    return _compose(content, {"notice_id": str(notice_id), "revision": 1, "notice_kind": "NEW"})


def first(content: Content, *, notice_id: UUID, lane: Lane) -> Revision:
    """Return revision 1 of a notice. Raises `RejectedError` NB-1000."""
    notice, body = check(content, notice_id)
    return Revision(notice=notice, body=body, message_id=uuid7(), lane=lane, supersedes=None)


def later(
    content: Content,
    *,
    notice_id: UUID,
    revision: int,
    kind: NoticeKind,
    reason: ReasonCode,
    supersedes: UUID,
    lane: Lane,
    cause: UUID | None = None,
) -> Revision:
    """Return a later revision, which supersedes the message before it.

    `cause` is the message that it corrects, if that is an earlier one which was refused.
    Raises `RejectedError` NB-1000.
    """
    notice, body = _compose(
        content,
        {
            "notice_id": str(notice_id),
            "revision": revision,
            "notice_kind": str(kind),
            "reason_code": str(reason),
            "supersedes": str(supersedes),
        },
    )
    return Revision(
        notice=notice,
        body=body,
        message_id=uuid7(),
        lane=lane,
        supersedes=supersedes,
        cause=cause,
    )


def _compose(content: Content, naming: Mapping[str, Any]) -> tuple[Notice, bytes]:
    body = canonical({**content, "schema_version": Notice.versions[-1], **naming})
    try:
        # The fields are spelled as on the wire already, so that these bytes are what is sent.
        return Notice.model_validate_json(body), body
    except ValidationError:
        raise _named(body) from None


def _named(body: bytes) -> RejectedError:
    """Return the error of a body that breaks the schema, in the words of what people typed."""
    try:
        parse_body(Kind.FTA, 1, body)
    except RejectedError as error:
        if "rule" in error.where:
            return RejectedError("NB-1000", field=error.where["field"], rule=error.where["rule"])
        return error
    raise AssertionError("the catalog takes what the model refused")


def sending_of(revision: Revision, release: str | None, *, kept_code: str | None = None) -> Sending:
    """Return what an obligation becomes that waited, or was dismissed, and is sent now."""
    notice = revision.notice
    return Sending(
        notice_id=notice.notice_id,
        hearing_at=notice.hearing_at,
        hearing_zone=notice.hearing_zone,
        outcome=notice.outcome,
        office=notice.aor_code,
        lane=revision.lane,
        release=release,
        kept_code=kept_code,
    )


def corrected_by(revision: Revision) -> Corrected:
    """Return what an obligation stands for once this revision says it anew."""
    notice = revision.notice
    return Corrected(
        notice_id=notice.notice_id,
        a_number=notice.a_number,
        base_city=notice.base_city_code,
        hearing_on=notice.hearing_on,
        hearing_at=notice.hearing_at,
        hearing_zone=notice.hearing_zone,
        outcome=notice.outcome,
        office=notice.aor_code,
        revision=notice.revision,
    )


async def accept_revisions(
    tx: Transaction, revisions: Sequence[Revision], now: datetime
) -> list[bytes]:
    """Put revisions into the outbox and note them; returns the commitment of each.

    The caller writes the ledger record and the obligation's new state in the same transaction.
    """
    drafts = [
        Draft(
            message_id=revision.message_id,
            kind=Kind.FTA,
            lane=revision.lane,
            notice_id=revision.notice.notice_id,
            revision=revision.notice.revision,
            body=revision.body,
            salt=token_bytes(32),
            correlation_id=revision.notice.notice_id,
            causation_id=revision.cause or revision.supersedes,
            made_at=now,
        )
        for revision in revisions
    ]
    await store.add_revisions(
        tx,
        [
            RevisionRow(
                notice_id=revision.notice.notice_id,
                revision=revision.notice.revision,
                message_id=revision.message_id,
                notice_kind=revision.notice.notice_kind,
                reason_code=revision.notice.reason_code,
                made_at=now,
            )
            for revision in revisions
        ],
    )
    await accept(tx, drafts)
    return [draft.commitment for draft in drafts]


def record_of(
    action: str,
    *,
    now: datetime,
    actor: str,
    office: str | None = None,
    notice_id: UUID | None = None,
    revision: Revision | None = None,
    commitment: bytes | None = None,
    content: Kept | None = None,
    lane: Lane | None = None,
    reason: str | None = None,
    result: str = "ok",
) -> Record:
    """Return the ledger record of an act on a notice: who, for which office, what, why.

    What was made or kept is named in it, so that state can be told from records and contents.
    """
    detail: dict[str, int | str] = {}
    if revision is not None:
        detail |= {"revision": revision.notice.revision, "lane": str(revision.lane)}
    if content is not None:
        commitment = content.commitment
        detail["content"] = str(content.content_id)
    if lane is not None:
        detail["lane"] = str(lane)
    return make_record(
        action,
        time=now,
        result=result,
        notice_id=notice_id,
        message_id=None if revision is None else revision.message_id,
        commitment=commitment,
        policy=codes.policy().version,
        reason=reason,
        actor=actor,
        office=office,
        detail=detail or None,
    )

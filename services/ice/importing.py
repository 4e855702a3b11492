"""What an import of findings knows while it runs, and what it says at the end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from uuid import UUID

from schemas.envelope import Lane
from schemas.errors import NoticeBusError
from services.ice.docket.findings import Finding
from services.ice.revisions import KEY_FIELDS, Revision, accept_revisions, record_of
from services.ledger.records import Record
from services.ledger.store import Transaction

# A hearing missed this recently goes out on the live lane: somebody can still act on it today.
LIVE_DAYS = 30

# What the table of aliases calls the keys of `KEY_FIELDS`.
KEY_KINDS = ("case", "proceeding", "schedule")


def lane_by_age(hearing_on: date, now: datetime, *, live_days: int = LIVE_DAYS) -> Lane:
    """Return live for a hearing of the last `live_days`, else backlog."""
    recent = now.date() - timedelta(days=live_days)
    return Lane.LIVE if hearing_on >= recent else Lane.BACKLOG


def keys_of(finding: Finding) -> dict[str, int]:
    """Return the court's keys of a finding by the notice's field names, the first of each kind."""
    told: dict[str, int] = {}
    for keys in (finding.keys, *finding.aliases):
        for name, key in zip(KEY_FIELDS, keys, strict=True):
            if key:
                told.setdefault(name, key)
    return told


def aliases_of(
    finding: Finding, notice_id: UUID, known: Mapping[str, int]
) -> list[tuple[UUID, str, int]]:
    """Return the keys of a finding (notice, kind, key) that are others than the known ones."""
    return [
        (notice_id, kind, key)
        for keys in (finding.keys, *finding.aliases)
        for kind, name, key in zip(KEY_KINDS, KEY_FIELDS, keys, strict=True)
        if key and key != known.get(name)
    ]


@dataclass(frozen=True, slots=True)
class Refused:
    """A finding of which no valid notice can be made; the others went on."""

    finding: Finding
    error: NoticeBusError


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What became of findings. `recorded` and `to_confirm` are new; `already` were known before.

    Of the known ones, `updated` gained their first court keys and HHS is told; `sent_after_all`
    waited for a person until the court decided; `asked_again` were dismissed before it did.
    `withdrawals` counts sent notices, and `taken_back` waiting ones, whose hearing the docket took
    back: a person is asked.
    """

    recorded: int = 0
    to_confirm: int = 0
    already: int = 0
    updated: int = 0
    sent_after_all: int = 0
    asked_again: int = 0
    withdrawals: int = 0
    taken_back: int = 0
    refused: tuple[Refused, ...] = ()

    def plus(self, other: "Opened") -> "Opened":
        """Return the sum of both."""
        return Opened(
            recorded=self.recorded + other.recorded,
            to_confirm=self.to_confirm + other.to_confirm,
            already=self.already + other.already,
            updated=self.updated + other.updated,
            sent_after_all=self.sent_after_all + other.sent_after_all,
            asked_again=self.asked_again + other.asked_again,
            withdrawals=self.withdrawals + other.withdrawals,
            taken_back=self.taken_back + other.taken_back,
            refused=self.refused + other.refused,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Importing:
    """Who opens obligations, from which release, when; and the lane, where it is not by age."""

    release: str
    actor: str
    now: datetime
    lane: Lane | None = None
    live_days: int = LIVE_DAYS

    def lane_of(self, hearing_on: date) -> Lane:
        """Return the lane of a hearing: today's children are never behind a backlog."""
        return self.lane or lane_by_age(hearing_on, self.now, live_days=self.live_days)

    async def send(
        self,
        tx: Transaction,
        action: str,
        revisions: Sequence[Revision],
        *,
        reason: str | None = None,
    ) -> list[Record]:
        """Put revisions into the outbox; returns their ledger records, not appended yet."""
        if not revisions:
            return []
        commitments = await accept_revisions(tx, revisions, self.now)
        return [
            record_of(
                action,
                now=self.now,
                actor=self.actor,
                office=revision.notice.aor_code,
                notice_id=revision.notice.notice_id,
                revision=revision,
                commitment=commitment,
                reason=reason,
            )
            for revision, commitment in zip(revisions, commitments, strict=True)
        ]

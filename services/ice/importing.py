"""What an import of findings knows while it runs, and what it says at the end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime, timedelta
from uuid import UUID

from schemas.envelope import Lane
from schemas.errors import NoticeBusError, UnavailableError
from services.ice.docket.findings import Finding, TakenBack
from services.ice.docket.rejects import Reject, unforeseen
from services.ice.revisions import KEY_FIELDS, Revision, accept_revisions, keep, kept, record_of
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


def reject_of(item: Finding | TakenBack, error: Exception) -> Reject:
    """Return the reject of what cannot be written, with the row that it rests on.

    An error that is no fault of a row is raised again: see `unforeseen`.
    """
    if isinstance(error, NoticeBusError) and not isinstance(error, UnavailableError):
        field = str(error.where.get("field", ""))
        return Reject(item.file, item.line, error.code, field, said=error.fix)
    fault = unforeseen(error)
    return Reject(item.file, item.line, fault.code, fault.column)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What became of findings. `recorded` and `to_confirm` are new; `already` were known before.

    Of the known ones, `updated` gained their first court keys and HHS is told; `sent_after_all`
    waited for a person until the court decided; `asked_again` were dismissed or withdrawn before
    the docket said that they were missed after all. `withdrawals` counts sent notices, and
    `taken_back` waiting ones, whose hearing the docket took back: a person is asked. `unasked` are
    questions that ended because the docket says now what it said at first. Of `refused` no valid
    notice could be made.
    """

    recorded: int = 0
    to_confirm: int = 0
    already: int = 0
    updated: int = 0
    sent_after_all: int = 0
    asked_again: int = 0
    withdrawals: int = 0
    taken_back: int = 0
    unasked: int = 0
    refused: int = 0

    def plus(self, other: "Opened") -> "Opened":
        """Return the sum of both."""
        names = (each.name for each in fields(self))
        return Opened(**{name: getattr(self, name) + getattr(other, name) for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class Importing:
    """Who opens obligations, from which release, when; and the lane, where it is not by age.

    `since` is when the release was first read: it says nothing new of what was said after that.
    `refuse` is told of what no valid notice can be made of.
    """

    release: str
    actor: str
    now: datetime
    since: datetime
    refuse: Callable[[Reject], None]
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

    async def attached(
        self,
        tx: Transaction,
        first: Mapping[UUID, Mapping[str, int]],
        aliases: Sequence[tuple[UUID, str, int]],
        offices: Mapping[UUID, str],
    ) -> list[Record]:
        """Keep which keys of the court attached to which hearing, the first of a kind apart.

        Returns the ledger records, not appended yet: the keys lead to a child, so a record binds
        them and does not tell them.
        """
        further: dict[UUID, list[list[str | int]]] = {}
        for notice_id, kind, key in sorted(aliases):
            further.setdefault(notice_id, []).append([kind, key])
        contents = {
            notice_id: kept(
                {"first": first.get(notice_id, {}), "further": further.get(notice_id, [])}
            )
            for notice_id in sorted(first.keys() | further.keys())
        }
        if contents:
            await keep(tx, list(contents.values()))
        return [
            record_of(
                "notice.keys_attached",
                now=self.now,
                actor=self.actor,
                office=offices[notice_id],
                notice_id=notice_id,
                content=content,
            )
            for notice_id, content in contents.items()
        ]

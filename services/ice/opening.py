"""Open obligations that did not exist: those sent at once, and those that wait for a person."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from uuid_utils.compat import uuid7

from schemas.codes import Treatment
from schemas.envelope import Lane
from schemas.errors import NoticeBusError
from services.ice import revisions
from services.ice.docket.findings import Finding
from services.ice.importing import Importing, Opened, aliases_of, keys_of, reject_of
from services.ice.revisions import Kept, Revision, keep, kept, record_of
from services.ice.store import obligations as store
from services.ice.store.obligations import HearingKey, NewObligation
from services.ledger.store import Transaction, append


@dataclass(slots=True, kw_only=True)
class Opening:
    """Obligations about to be opened, each with its revision unless a person has to confirm."""

    importing: Importing
    rows: dict[HearingKey, NewObligation] = field(default_factory=dict)
    sending: dict[UUID, Revision] = field(default_factory=dict)
    waiting: dict[UUID, Kept] = field(default_factory=dict)
    aliases: list[tuple[UUID, str, int]] = field(default_factory=list)
    refused: int = 0
    inserted: set[UUID] = field(default_factory=set)

    def compose(self, key: HearingKey, finding: Finding, *, prior_missed: int) -> None:
        """Make the obligation of a finding, or note why its notice would break the schema."""
        importing, notice_id = self.importing, uuid7()
        lane = importing.lane_of(finding.hearing_on)
        keys = keys_of(finding)
        content = revisions.detected(
            {**finding.content, **keys}, at=importing.now, prior_missed=prior_missed
        )
        try:
            revision = revisions.first(content, notice_id=notice_id, lane=lane)
        except NoticeBusError as error:
            importing.refuse(reject_of(finding, error))
            self.refused += 1
            return
        notice = revision.notice
        at_once = finding.decision is Treatment.SEND
        self.rows[key] = NewObligation(
            notice_id=notice_id,
            a_number=finding.a_number,
            base_city=finding.base_city,
            hearing_on=finding.hearing_on,
            hearing_at=notice.hearing_at,
            hearing_zone=notice.hearing_zone,
            outcome=notice.outcome,
            office=notice.aor_code,
            lane=lane,
            state="recorded" if at_once else "to_confirm",
            confirm=None if at_once else "send",
            confirm_code=None if at_once else finding.confirm_code,
            revision=1 if at_once else 0,
            detected_at=importing.now,
            origin="docket",
            release=importing.release,
            eoir_case_key=notice.eoir_case_key,
            eoir_proceeding_key=notice.eoir_proceeding_key,
            eoir_schedule_key=notice.eoir_schedule_key,
            content_id=None,
        )
        if at_once:
            self.sending[notice_id] = revision
        else:
            waits = self.waiting[notice_id] = kept(content)
            self.rows[key] = replace(self.rows[key], content_id=waits.content_id)
        if finding.aliases:
            self.aliases += aliases_of(finding, notice_id, keys)

    async def write(self, tx: Transaction) -> list[HearingKey]:
        """Write what was composed; returns hearings that somebody else opened meanwhile."""
        if not self.rows:
            return []
        self.inserted = await store.add(tx, list(self.rows.values()))
        rows = self._ours()
        aliases = [alias for alias in self.aliases if alias[0] in self.inserted]
        gained = await store.add_aliases(tx, aliases) if aliases else []
        waiting = {row.notice_id: self.waiting[row.notice_id] for row in rows if not row.revision}
        if waiting:
            await keep(tx, list(waiting.values()))
        records = await self.importing.send(
            tx, "notice.recorded", [self.sending[row.notice_id] for row in rows if row.revision]
        )
        records += [
            record_of(
                "notice.to_confirm",
                now=self.importing.now,
                actor=self.importing.actor,
                office=row.office,
                notice_id=row.notice_id,
                reason=row.confirm_code,
                content=waiting[row.notice_id],
                lane=Lane(row.lane),
            )
            for row in rows
            if not row.revision
        ]
        records += await self.importing.attached(
            tx, {}, gained, {row.notice_id: row.office for row in rows}
        )
        await append(tx, records)
        return [key for key, row in self.rows.items() if row.notice_id not in self.inserted]

    def counted(self) -> Opened:
        """Count what was opened."""
        rows = self._ours()
        recorded = sum(row.revision for row in rows)
        return Opened(recorded=recorded, to_confirm=len(rows) - recorded, refused=self.refused)

    def _ours(self) -> Sequence[NewObligation]:
        return [row for row in self.rows.values() if row.notice_id in self.inserted]

"""Bring what a finding adds to an obligation that is known: court keys, or the court's decision.

Keys of a kind that was not known yet stand with the obligation from now on, and if its notice was
sent, HHS is told in a STATUS_UPDATE, once. Further keys of the same kind are aliases and tell HHS
nothing. A decision of the court ends the wait for a person; where a person decided before it not
to send, it is a new question.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from schemas.canonical import canonical
from schemas.codes import Treatment
from schemas.envelope import Lane
from schemas.notice import NoticeKind, Priority, ReasonCode
from services.ice import revisions
from services.ice.docket.findings import Finding
from services.ice.importing import Importing, Opened, aliases_of, keys_of
from services.ice.revisions import KEY_FIELDS, Revision, record_of, sending_of
from services.ice.store import obligations as store
from services.ice.store.obligations import Obligation, Question
from services.ledger.store import Transaction, append


def adds_something(finding: Finding, row: Obligation) -> bool:
    """Tell whether a finding says more than is known; most of a second run says nothing new."""
    told = keys_of(finding)
    keys = any(key != getattr(row, name) for name, key in told.items())
    return keys or bool(finding.aliases) or _decides(finding, row)


def _decides(finding: Finding, row: Obligation) -> bool:
    """Tell whether the court decided since a person was asked, or since one said no."""
    if finding.decision is not Treatment.SEND or row.revision:
        return False
    return row.state == "to_confirm" or (
        row.state == "dismissed" and finding.content["outcome"] not in row.kept_codes
    )


@dataclass(slots=True, kw_only=True)
class Attaching:
    """What is about to be added to known obligations, whose rows are held."""

    importing: Importing
    offices: dict[UUID, str] = field(default_factory=dict)
    first_keys: list[tuple[UUID, int | None, int | None, int | None]] = field(default_factory=list)
    aliases: list[tuple[UUID, str, int]] = field(default_factory=list)
    to_tell: dict[UUID, tuple[Obligation, dict[str, int]]] = field(default_factory=dict)
    sending: list[Revision] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def add(self, finding: Finding, row: Obligation) -> None:
        """Sort out what a finding adds to its obligation."""
        self.offices[row.notice_id] = row.office
        told = keys_of(finding)
        gains = {name: key for name, key in told.items() if getattr(row, name) is None}
        if gains:
            case, proceeding, schedule = (gains.get(name) for name in KEY_FIELDS)
            self.first_keys.append((row.notice_id, case, proceeding, schedule))
            if row.state == "recorded":
                self.to_tell[row.notice_id] = (row, gains)
        self.aliases += aliases_of(finding, row.notice_id, {**told, **_known_keys(row)})
        if _decides(finding, row):
            self._decide(row, finding)

    def _decide(self, row: Obligation, finding: Finding) -> None:
        assert row.content is not None, "what was never sent has its content here"
        waiting = revisions.content_of(row.content)
        content: dict[str, Any] = {
            **waiting,
            **finding.content,
            **keys_of(finding),
            **_known_keys(row),
        }
        if waiting["priority"] == Priority.URGENT:
            content["priority"] = str(Priority.URGENT)
        if row.state == "to_confirm":
            lane = self.importing.lane_of(row.hearing_on)
            self.sending.append(revisions.first(content, notice_id=row.notice_id, lane=lane))
            return
        # A person said no once. What the court did since is a new question, not an order.
        question = Question(
            notice_id=row.notice_id,
            confirm="send",
            confirm_code=content["outcome"],
            content=canonical(content),
            outcome=content["outcome"],
        )
        self.questions.append(question)

    async def write(self, tx: Transaction) -> Opened:
        """Write it, with a ledger record for each obligation that changed."""
        importing = self.importing
        changed = {row[0] for row in self.first_keys}
        if self.first_keys:
            await store.set_first_keys(tx, self.first_keys)
        if self.aliases:
            changed |= await store.add_aliases(tx, self.aliases)
        updates = await self._updates(tx)
        records = await importing.send(
            tx, "notice.updated", updates, reason=ReasonCode.KEYS_ATTACHED
        )
        if updates:
            await store.advance(tx, [(u.notice.notice_id, u.notice.revision) for u in updates])
        records += await importing.send(tx, "notice.recorded", self.sending)
        if self.sending:
            await store.send_waiting(
                tx, [sending_of(revision, importing.release) for revision in self.sending]
            )
        if self.questions:
            await store.ask(tx, self.questions)
        told = {revision.notice.notice_id for revision in (*updates, *self.sending)}
        asked = {question.notice_id: question.confirm_code for question in self.questions}
        records += [
            record_of(
                "notice.to_confirm" if notice_id in asked else "notice.keys_attached",
                now=importing.now,
                actor=importing.actor,
                office=self.offices[notice_id],
                notice_id=notice_id,
                reason=asked.get(notice_id),
            )
            for notice_id in sorted((changed - told) | asked.keys())
        ]
        await append(tx, records)
        return Opened(
            updated=len(updates),
            sent_after_all=len(self.sending),
            asked_again=len(self.questions),
        )

    async def _updates(self, tx: Transaction) -> list[Revision]:
        """Return the STATUS_UPDATEs that tell HHS of the keys; none where content was erased."""
        if not self.to_tell:
            return []
        bodies = await store.bodies(tx, [_newest(row) for row, _ in self.to_tell.values()])
        return [
            revisions.later(
                {**revisions.content_of(bodies[_newest(row)]), **_known_keys(row), **gains},
                notice_id=row.notice_id,
                revision=row.revision + 1,
                kind=NoticeKind.STATUS_UPDATE,
                reason=ReasonCode.KEYS_ATTACHED,
                supersedes=_newest(row),
                lane=Lane(row.lane),
            )
            for row, gains in self.to_tell.values()
            if _newest(row) in bodies
        ]


async def attach(
    tx: Transaction, pairs: Sequence[tuple[Finding, Obligation]], importing: Importing
) -> Opened:
    """Bring findings to obligations that are known."""
    already = Opened(already=len(pairs))
    touched = [(finding, row) for finding, row in pairs if adds_something(finding, row)]
    if not touched:
        return already
    held = await store.lock(tx, [row.notice_id for _, row in touched])
    attaching = Attaching(importing=importing)
    for finding, row in touched:
        attaching.add(finding, held[row.notice_id])
    return already.plus(await attaching.write(tx))


def _known_keys(row: Obligation) -> dict[str, int]:
    return {name: key for name in KEY_FIELDS if (key := getattr(row, name)) is not None}


def _newest(row: Obligation) -> UUID:
    assert row.message_id is not None, "a recorded obligation has a message"
    return row.message_id

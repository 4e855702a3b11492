"""Bring what a finding adds to an obligation that is known: court keys, or the court's decision.

Keys of a kind that was not known yet stand with the obligation from now on, and if its notice was
sent, HHS is told in a STATUS_UPDATE, once, also while a person is asked whether to withdraw it.
Further keys of the same kind are aliases and tell HHS nothing. A decision of the court ends the
wait for a person; where a person decided before it not to send, it is a new question. What was
taken back and is found again: see `reversals`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from schemas.codes import Treatment
from schemas.envelope import Lane
from schemas.errors import RejectedError
from schemas.notice import NoticeKind, Priority, ReasonCode
from services.ice import reversals, revisions
from services.ice.docket.findings import Finding
from services.ice.importing import Importing, Opened, aliases_of, keys_of, reject_of
from services.ice.reversals import Reversal
from services.ice.revisions import (
    KEY_FIELDS,
    Kept,
    Revision,
    keep,
    kept,
    known_keys,
    record_of,
    sending_of,
)
from services.ice.store import obligations as store
from services.ice.store.obligations import Obligation, Question, Turned
from services.ledger.store import Transaction, append


def adds_something(finding: Finding, row: Obligation) -> bool:
    """Tell whether a finding says more than is known; most of a second run says nothing new."""
    told = keys_of(finding)
    keys = any(key != getattr(row, name) for name, key in told.items())
    reversal = reversals.concerns(row)
    return keys or bool(finding.aliases) or _decides(finding, row) or reversal


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
    first_keys: dict[UUID, dict[str, int]] = field(default_factory=dict)
    aliases: list[tuple[UUID, str, int]] = field(default_factory=list)
    to_tell: dict[UUID, tuple[Obligation, dict[str, int]]] = field(default_factory=dict)
    sending: list[Revision] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    waiting: dict[UUID, Kept] = field(default_factory=dict)
    reversals: list[Reversal] = field(default_factory=list)

    def add(self, finding: Finding, row: Obligation, turned: Turned | None) -> None:
        """Sort out what a finding adds to its obligation; `turned`: see `reversals`.

        Raises `RejectedError` NB-1000 when what is decided now makes no valid notice; nothing of
        the finding is attached then.
        """
        if _decides(finding, row):
            self._decide(row, finding)
        self.offices[row.notice_id] = row.office
        told = keys_of(finding)
        gains = {name: key for name, key in told.items() if getattr(row, name) is None}
        if gains:
            self.first_keys[row.notice_id] = gains
            if row.revision and not row.withdrawn:
                self.to_tell[row.notice_id] = (row, gains)
        self.aliases += aliases_of(finding, row.notice_id, {**told, **known_keys(row)})
        reversal = reversals.missed_again(finding, row, turned=turned, since=self.importing.since)
        if reversal is not None:
            self.reversals.append(reversal)

    def _decide(self, row: Obligation, finding: Finding) -> None:
        # What was erased is not needed: the finding says it again, as if it were learned of today.
        waiting = (
            revisions.detected({}, at=self.importing.now, prior_missed=0)
            if row.content is None
            else revisions.content_of(row.content)
        )
        content: dict[str, Any] = {
            **waiting,
            **finding.content,
            **keys_of(finding),
            **known_keys(row),
        }
        if waiting.get("priority") == Priority.URGENT:
            content["priority"] = str(Priority.URGENT)
        if row.state == "to_confirm":
            lane = self.importing.lane_of(row.hearing_on)
            self.sending.append(revisions.first(content, notice_id=row.notice_id, lane=lane))
            return
        # A person said no once. What the court did since is a new question, not an order.
        waits = self.waiting[row.notice_id] = kept(content)
        question = Question(
            notice_id=row.notice_id,
            confirm="send",
            confirm_code=content["outcome"],
            content_id=waits.content_id,
            outcome=content["outcome"],
        )
        self.questions.append(question)

    async def write(self, tx: Transaction) -> Opened:
        """Write it, with a ledger record for each obligation that changed."""
        importing = self.importing
        if self.first_keys:
            await store.set_first_keys(
                tx,
                [
                    (notice_id, *(gains.get(name) for name in KEY_FIELDS))
                    for notice_id, gains in self.first_keys.items()
                ],
            )
        gained = await store.add_aliases(tx, self.aliases) if self.aliases else []
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
            await keep(tx, list(self.waiting.values()))
            await store.ask(tx, self.questions)
        records += [
            record_of(
                "notice.to_confirm",
                now=importing.now,
                actor=importing.actor,
                office=self.offices[question.notice_id],
                notice_id=question.notice_id,
                reason=question.confirm_code,
                content=self.waiting[question.notice_id],
            )
            for question in self.questions
        ]
        records += await importing.attached(tx, self.first_keys, gained, self.offices)
        await append(tx, records)
        opened = Opened(
            updated=len(updates),
            sent_after_all=len(self.sending),
            asked_again=len(self.questions),
        )
        return opened.plus(await reversals.write(tx, self.reversals, importing))

    async def _updates(self, tx: Transaction) -> list[Revision]:
        """Return the STATUS_UPDATEs that tell HHS of the keys; none where content was erased."""
        if not self.to_tell:
            return []
        bodies = await store.bodies(tx, [_newest(row) for row, _ in self.to_tell.values()])
        return [
            revisions.later(
                {**revisions.content_of(bodies[_newest(row)]), **known_keys(row), **gains},
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
    touched = [(finding, row) for finding, row in pairs if adds_something(finding, row)]
    if not touched:
        return Opened(already=len(pairs))
    held = await store.lock(tx, [row.notice_id for _, row in touched])
    turned = await store.turned(tx, [key for key, r in held.items() if reversals.concerns(r)])
    attaching = Attaching(importing=importing)
    refused = 0
    for finding, row in touched:
        try:
            attaching.add(finding, held[row.notice_id], turned.get(row.notice_id))
        except RejectedError as error:
            importing.refuse(reject_of(finding, error))
            refused += 1
    known = Opened(already=len(pairs) - refused, refused=refused)
    return known.plus(await attaching.write(tx))


def _newest(row: Obligation) -> UUID:
    assert row.message_id is not None, "a recorded obligation has a message"
    return row.message_id

"""Make obligations, revisions, aliases and replies again, and with them the view `notice`.

Derived: `obligation`, `notice_revision`, `alias` and `reply`, with `sent` (see
`services.exchange.rebuilding`). An obligation begins with the content that opened it and follows
the acts on record: asked, sent, dismissed, kept, withdrawn. What waits for a person has its content
kept like a message's; further keys of the court are such a content too, because they lead to a
child and no record tells them. Primary: `docket_import`, how far a release was read.
"""

from typing import Any

from schemas.canonical import parse
from schemas.errors import RejectedError
from services.exchange.rebuilding import Rebuilding, State, notice_members, rebuild_sent
from services.exchange.rebuilding.store import SaidRow
from services.ice import revisions
from services.ice.importing import KEY_KINDS
from services.ice.rebuilding import store
from services.ice.rebuilding.store import AttachedRow, Kept
from services.ice.revisions import KEY_FIELDS


async def rebuild(work: Rebuilding) -> None:
    """Make ICE's projections again, in the schema of `work`."""
    await store.begin(work.tx)
    async for batch in store.kept(work.tx):
        await store.keep_waiting(work.tx, [_waiting(each) for each in batch if each.asks])
        attached = [row for each in batch if not each.asks for row in _attached(each)]
        await store.keep_attached(work.tx, attached)
        work.tell("contents", len(batch))
    await store.rebuild_obligations(work.tx)
    await rebuild_sent(work, revisions=store.NONE_KNOWN)
    await store.finish(work.tx)


def _waiting(content: Kept) -> SaidRow:
    """Return what a notice would say, of a content that waits for a person."""
    try:
        notice, _ = revisions.check(parse(content.body), content.notice_id)
        members: dict[str, Any] = notice_members(notice)
    except RejectedError:
        return SaidRow(message_id=content.content_id, state=State.UNREADABLE)
    return SaidRow(message_id=content.content_id, state=State.WHOLE, kind="fta", **members)


def _attached(content: Kept) -> list[AttachedRow]:
    """Return the court's keys that one act attached, the first of a kind by its field's name."""
    said = parse(content.body)
    kinds = dict(zip(KEY_FIELDS, KEY_KINDS, strict=True))
    first = [(kinds[name], key, True) for name, key in said["first"].items()]
    further = [(kind, key, False) for kind, key in said["further"]]
    return [
        AttachedRow(
            notice_id=content.notice_id, record_id=content.record_id, kind=kind, key=key, first=is_
        )
        for kind, key, is_ in (*first, *further)
    ]

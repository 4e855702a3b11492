"""What was erased, and that records say so: contents that are gone, by policy version."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from schemas.canonical import b64
from schemas.errors import EvidenceError
from services.ledger.records import read_record
from services.ledger.store import Store, erased


@dataclass(frozen=True, slots=True)
class Gone:
    """Contents that are not here any more: erased, by policy version, and moved to archives.

    `records` counts the records of which bytes are in archives.
    """

    by_policy: Mapping[str, int]
    archived: int
    records: int


async def gone(store: Store) -> Gone:
    """Count what is gone, and hold it to the records of the erasures and archives.

    Raises `EvidenceError` NB-3120 when contents are gone that no record tells of, or others than
    the records say; NB-3071 when records are.
    """
    async with store.transaction() as tx:
        batches = await erased.batches(tx)
        found, archived, unexplained = await erased.counted(tx)
        moved = await erased.moved(tx)
    by_policy: dict[str, int] = {}
    for batch in batches:
        said = read_record(batch.record, index=batch.record_index or 0)
        detail = said.get("detail", {})
        here = found.pop(batch.erasure_id, 0)
        told = (said.get("action"), said.get("policy"), detail.get("erasure"))
        known = ("content.erased", batch.policy, str(batch.erasure_id))
        if told != known or detail.get("payloads") != here:
            raise _unlike(batch.erasure_id, here)
        by_policy[batch.policy] = by_policy.get(batch.policy, 0) + here
    for erasure_id, here in found.items():
        raise _unlike(erasure_id, here)
    if unexplained:
        raise EvidenceError("NB-3120", what="without an erasure", count=unexplained)
    for archive in moved:
        said = {} if archive.record is None else read_record(archive.record, index=0)
        detail = said.get("detail", {})
        told = (said.get("action"), detail.get("archive"), detail.get("records"))
        if told != ("db.archived", b64(archive.digest), archive.away):
            raise EvidenceError("NB-3071", archive=archive.archive_id, count=archive.away)
    return Gone(by_policy, archived, sum(archive.away for archive in moved))


def _unlike(erasure_id: UUID, count: int) -> EvidenceError:
    return EvidenceError("NB-3120", what=f"by erasure {erasure_id}", count=count)

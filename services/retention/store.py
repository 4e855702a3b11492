"""Statements about contents past their retention: which those are, and their erasure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from uuid import UUID

from services.ledger.store import Transaction

PASS_SECONDS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was erased: notices, contents, encrypted bytes, bytes of dead letters, names."""

    notices: int = 0
    payloads: int = 0
    envelopes: int = 0
    letters: int = 0
    openings: int = 0

    def said(self) -> dict[str, int]:
        """Return the counts by name."""
        return asdict(self)

    def plus(self, other: "Counts") -> "Counts":
        """Return the sum."""
        more = other.said()
        return Counts(**{name: value + more[name] for name, value in self.said().items()})


# When a notice is over: at HHS its case, at ICE by what a person decided or HHS said.
_CLOSED = {
    "hhs": "SELECT notice_id FROM case_file WHERE state IN ('closed', 'withdrawn')",
    "ice": (
        "SELECT notice_id FROM obligation AS o WHERE state IN ('withdrawn', 'dismissed')"
        " OR (state = 'recorded' AND EXISTS (SELECT FROM reply AS r"
        " WHERE r.notice_id = o.notice_id AND r.kind = 'outcome'))"
    ),
}

# Over, nothing of it owed, waiting or set aside, and nothing happened since. That somebody had a
# proof made is no act on the notice. A refusal counts as mended once a later revision was taken.
_OVER = """
WITH closed AS ({closed})
SELECT c.notice_id FROM closed AS c
WHERE NOT EXISTS (SELECT FROM record AS r WHERE r.notice_id = c.notice_id
                  AND r.action <> 'proof.built'
                  AND (r.recorded_at >= %(before)s
                       OR EXISTS (SELECT FROM unsealed AS u WHERE u.record_id = r.record_id)))
  AND NOT EXISTS (SELECT FROM outbox AS o WHERE o.notice_id = c.notice_id)
  AND NOT EXISTS (SELECT FROM sent AS s WHERE s.notice_id = c.notice_id
                  AND (s.answer IS NULL OR (s.answer = 'refusal' AND NOT EXISTS (
                      SELECT FROM sent AS later WHERE later.notice_id = s.notice_id
                      AND later.revision > s.revision AND later.answer = 'receipt'))))
  AND NOT EXISTS (SELECT FROM inbox AS i WHERE i.notice_id = c.notice_id
                  AND i.state IN ('held', 'refused'))
  AND NOT EXISTS (SELECT FROM dead_letter AS d WHERE d.notice_id = c.notice_id
                  AND d.state = 'open')
  AND (EXISTS (SELECT FROM record AS r JOIN opening AS o USING (record_id)
               WHERE r.notice_id = c.notice_id AND r.action <> 'proof.built')
       OR EXISTS (SELECT FROM record AS r JOIN payload AS p ON p.message_id = r.message_id
                  WHERE r.notice_id = c.notice_id AND p.body IS NOT NULL))
ORDER BY c.notice_id LIMIT %(limit)s
"""


async def over(tx: Transaction, agency: str, *, before: datetime, limit: int | None) -> list[UUID]:
    """Return closed notices on which nothing happened since `before` and of which something stays.

    At most `limit`, in order of their ids; the first ones again until they are erased.
    """
    await tx.execute(f"SET LOCAL statement_timeout = '{PASS_SECONDS}s'")
    cursor = await tx.execute(
        _OVER.format(closed=_CLOSED[agency]), {"before": before, "limit": limit}
    )
    return [row[0] for row in await cursor.fetchall()]


# A message is refused and redriven: then its bytes are in both places.
_ENVELOPES = """
WITH message AS (
    SELECT message_id FROM sent WHERE notice_id = ANY(%(notices)b::uuid[])
    UNION SELECT message_id FROM inbox WHERE notice_id = ANY(%(notices)b::uuid[])
)
SELECT m.message_id, coalesce(e.envelope, d.bytes)
FROM message AS m
LEFT JOIN envelope AS e USING (message_id)
LEFT JOIN LATERAL (
    SELECT bytes FROM dead_letter
    WHERE authentic AND dead_letter.message_id = m.message_id AND erasure_id IS NULL
    ORDER BY first_at LIMIT 1
) AS d ON true
WHERE coalesce(e.envelope, d.bytes) IS NOT NULL
"""


async def envelopes(tx: Transaction, notices: Sequence[UUID]) -> list[tuple[UUID, bytes]]:
    """Return the exact bytes of every message about these notices."""
    cursor = await tx.execute(_ENVELOPES, {"notices": list(notices)})
    return [(row[0], bytes(row[1])) for row in await cursor.fetchall()]


# Contents are named by the records that commit to them: as a message, or as what waited for a
# person.
_PAYLOADS = """
WITH named AS (
    SELECT message_id FROM record
    WHERE notice_id = ANY(%(notices)b::uuid[]) AND message_id IS NOT NULL
    UNION
    SELECT (convert_from(record, 'UTF8')::jsonb #>> '{detail,content}')::uuid FROM record
    WHERE notice_id = ANY(%(notices)b::uuid[])
)
UPDATE payload AS p SET salt = NULL, body = NULL, erased_at = %(now)s, erasure_id = %(erasure)s
FROM named AS n WHERE p.message_id = n.message_id AND p.body IS NOT NULL
"""

_KEEP_LEFT = """
INSERT INTO erased_envelope (message_id, erasure_id, envelope)
SELECT message_id, %(erasure)s, envelope
FROM unnest(%(messages)b::uuid[], %(left)b::bytea[]) AS t (message_id, envelope)
ON CONFLICT (message_id) DO NOTHING
"""

_LETTERS = """
UPDATE dead_letter AS d SET bytes = t.envelope, erasure_id = %(erasure)s
FROM unnest(%(messages)b::uuid[], %(left)b::bytea[]) AS t (message_id, envelope)
WHERE d.message_id = t.message_id AND d.authentic AND d.erasure_id IS NULL
"""

_OPENINGS = """
DELETE FROM opening USING record
WHERE opening.record_id = record.record_id AND record.notice_id = ANY(%(notices)b::uuid[])
  AND record.action <> 'proof.built'
"""

# Names that are kept a second time for the queue; what was done, and when, stays to be counted.
_NAMES = {
    "hhs": (
        "UPDATE case_event SET actor = NULL WHERE notice_id = ANY(%(notices)b::uuid[])",
        "UPDATE case_file SET owner = NULL WHERE notice_id = ANY(%(notices)b::uuid[])",
    ),
    "ice": (),
}


async def erase(
    tx: Transaction,
    agency: str,
    erasure_id: UUID,
    *,
    notices: Sequence[UUID],
    left: Mapping[UUID, bytes],
    now: datetime,
) -> Counts:
    """Erase what is kept of these notices beside their records; `left` stays of each envelope."""
    values = {
        "notices": list(notices),
        "messages": list(left),
        "left": list(left.values()),
        "erasure": erasure_id,
        "now": now,
    }
    payloads = await tx.execute(_PAYLOADS, values)
    await tx.execute(_KEEP_LEFT, values)
    gone = await tx.execute(
        "DELETE FROM envelope WHERE message_id = ANY(%(messages)b::uuid[])", values
    )
    letters = await tx.execute(_LETTERS, values)
    openings = await tx.execute(_OPENINGS, values)
    for statement in _NAMES[agency]:
        await tx.execute(statement, values)
    return Counts(
        notices=len(notices),
        payloads=payloads.rowcount,
        envelopes=gone.rowcount,
        letters=letters.rowcount,
        openings=openings.rowcount,
    )


async def keep(
    tx: Transaction,
    erasure_id: UUID,
    *,
    run_id: UUID,
    record_id: int,
    policy: str,
    now: datetime,
    counts: Counts,
) -> None:
    """Note a batch beside its record."""
    await tx.execute(
        "INSERT INTO erasure (erasure_id, run_id, record_id, policy, erased_at, notices, payloads,"
        " envelopes, letters, openings) VALUES (%(erasure_id)s, %(run_id)s, %(record_id)s,"
        " %(policy)s, %(now)s, %(notices)s, %(payloads)s, %(envelopes)s, %(letters)s,"
        " %(openings)s)",
        {
            "erasure_id": erasure_id,
            "run_id": run_id,
            "record_id": record_id,
            "policy": policy,
            "now": now,
            **counts.said(),
        },
    )

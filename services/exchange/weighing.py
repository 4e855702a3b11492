"""Weigh what was signed by keys that ended: what counts, what its signer disputes, what is nothing.

The log is always the one of this store, and the cosignatures are the other agency's. For a message
of our own that agency is a witness; for one of its own it is the signer, and its cosignature of our
log stands against whatever it says later. What it says counts from the record on by which we took
its word: the party file that revokes the key, trusted by a person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from schemas.canonical import parse
from schemas.ending import Disputed, Ending, disputed, not_counted
from schemas.party import Party
from services.exchange import parties
from services.exchange.store import heads
from services.exchange.store import parties as store
from services.exchange.store.parties import PartyRecord
from services.ledger.store import Transaction, log


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighing:
    """How keys of both sides ended, by `kid`, and what our log shows of the time before.

    `cosigned` has the newest size of our log that the other agency cosigned before each revocation,
    `below` the newest that it cosigned before we learned of each of its own; `learned` is the index
    of the record by which we did (at `told_at`), and `not_sealed` are those of which that record
    has none yet.
    """

    endings: Mapping[str, Ending]
    witnesses: Sequence[str]
    cosigned: Sequence[tuple[int, datetime]]
    below: Sequence[tuple[int, datetime]]
    learned: Mapping[str, int]
    told_at: Mapping[str, datetime]
    not_sealed: frozenset[str]

    @classmethod
    async def read(cls, tx: Transaction) -> Self:
        """Read what is known of keys that ended."""
        endings: dict[str, Ending] = {}
        witnesses: set[str] = set()
        revoked_by: dict[str, list[str]] = {}
        for row in reversed(await parties.listed(tx)):
            party = Party.from_bytes(row.party)
            for kid, ending in party.endings().items():
                endings[kid] = ending.or_earlier(endings.get(kid))
            revoked_by[row.fingerprint] = [each.kid for each in party.revoked or ()]
            witnesses.update(key.name for key in party.cosigners())
        times = sorted({each.revoked.at for each in endings.values() if each.revoked is not None})
        learned: dict[str, int] = {}
        told_at: dict[str, datetime] = {}
        not_sealed: set[str] = set()
        for each in await store.records(tx, "party.trusted") if times else ():
            fresh = set(revoked_by.get(parse(each.record)["detail"]["fingerprint"], ()))
            for kid in fresh - learned.keys():
                learned[kid] = await _place(tx, each)
                told_at[kid] = each.recorded_at
                if each.record_index is None and not each.former:
                    not_sealed.add(kid)
        cosigned, below = [], []
        for name in sorted(witnesses) if times else ():
            cosigned += await heads.cosigned_before(tx, name, times)
            below += await heads.cosigned_up_to(tx, name, sorted(set(learned.values())))
        return cls(
            endings=endings,
            witnesses=sorted(witnesses),
            cosigned=[(kept.size, kept.cosigned_at) for kept in cosigned],
            below=[(kept.size, kept.cosigned_at) for kept in below],
            learned=learned,
            told_at=told_at,
            not_sealed=frozenset(not_sealed),
        )

    def rule(
        self, kid: str, *, place: tuple[str, int, int] | None, index: int | None
    ) -> str | None:
        """Return why a signature does not count, None where it does; see `not_counted`."""
        return not_counted(self.endings.get(kid), place=place, index=index, cosigned=self.cosigned)

    def disputed(self, kid: str, *, index: int | None) -> Disputed | None:
        """Return what stands for a signature of the other agency that does not count.

        It names some checkpoint that covers the record; `first_seen` finds the first one.
        """
        return disputed(
            self.endings.get(kid), index=index, cosigned=self.below, learned=self.learned.get(kid)
        )

    async def first_seen(self, tx: Transaction, found: Disputed) -> Disputed:
        """Return the same with the first checkpoint over the record that its signer cosigned."""
        over = [
            (kept.size, kept.cosigned_at)
            for name in self.witnesses
            if (kept := await heads.cosigned_over(tx, name, found.index)) is not None
        ]
        ending = self.endings.get(found.kid)
        first = disputed(ending, index=found.index, cosigned=over, learned=found.learned)
        return first or found


async def _place(tx: Transaction, record: PartyRecord) -> int:
    """Return where a record stands in our log, or will.

    One in a log that a restore ended stands before all of this one, one that is not sealed yet
    behind all that is.
    """
    if record.record_index is not None:
        return record.record_index
    return 0 if record.former else await log.size_of(tx)

"""Party files: the public half of an agency, trusted by a person who compared its fingerprint."""

from datetime import UTC, datetime

from schemas.errors import NotAllowedError
from schemas.party import Party, fingerprint
from services.exchange.store import parties as store
from services.exchange.store.parties import PartyRow
from services.ledger.records import make_record
from services.ledger.store import Transaction, append, notify

PARTY_CHANNEL = "party"


async def listed(tx: Transaction) -> list[PartyRow]:
    """Return every party file this agency keeps, the newest of each agency first."""
    return await store.all_parties(tx)


async def register_own(tx: Transaction, own: bytes) -> bool:
    """Keep our own party file as the current one, on record when it is new; False if it was."""
    party = Party.from_bytes(own)
    return await _keep(tx, party, own, action="party.published", actor=None)


async def trust(
    tx: Transaction, file: bytes, *, peer: str, expected_fingerprint: str, actor: str
) -> bool:
    """Trust a party file of `peer` whose fingerprint a person compared; False if it was already.

    Raises `RejectedError` for a file that is no party file, `NotAllowedError` when it belongs to
    somebody else or its fingerprint is not the expected one.
    """
    party = Party.from_bytes(file)
    if party.agency != peer:
        raise NotAllowedError("NB-4012", agency=party.agency, peer=peer)
    if fingerprint(file) != expected_fingerprint:
        raise NotAllowedError("NB-4013", found=fingerprint(file))
    return await _keep(tx, party, file, action="party.trusted", actor=actor)


async def _keep(
    tx: Transaction, party: Party, file: bytes, *, action: str, actor: str | None
) -> bool:
    now = datetime.now(UTC)
    found = fingerprint(file)
    if not await store.trust(tx, agency=party.agency, fingerprint=found, party=file, now=now):
        return False
    await append(
        tx,
        [
            make_record(
                action, time=now, actor=actor, detail={"party": party.agency, "fingerprint": found}
            )
        ],
    )
    await notify(tx, PARTY_CHANNEL)
    return True
